"""The forms people fill in by dialog, and how their answers are read."""
