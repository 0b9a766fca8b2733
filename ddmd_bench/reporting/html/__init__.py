"""The pages: what they show, made ready, and the templates, styles and scripts that show it."""
