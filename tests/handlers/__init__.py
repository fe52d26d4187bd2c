"""Rules of the answers to people that are worth their own tests."""
