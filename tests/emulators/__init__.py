"""Platforms that run on 127.0.0.1 and keep the rules of the real ones."""
