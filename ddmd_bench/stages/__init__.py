"""Stages of a run. They meet through files; none imports another."""
