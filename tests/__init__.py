"""Tests, and the emulated platforms they talk to."""
