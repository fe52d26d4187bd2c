"""The chat machine: it listens, talks and delivers, and knows nothing of any county."""
