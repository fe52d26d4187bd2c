"""Tests of what speaks first, by the clock."""
