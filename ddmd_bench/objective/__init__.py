"""The objective of decoupled distribution matching: schedules, terms, sampling."""
