"""What is said to people who speak."""
