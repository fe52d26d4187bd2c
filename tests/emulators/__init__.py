"""Platforms that run on 127.0.0.1 and keep the rules of the real ones.

Tests, load tests and `hongyan demo --platforms` use the same. Each platform is a module with its
rules, what its people can do and a transcript per person; `server.Platforms` serves them all at
once. By hand: `python -m tests.emulators`, whose help shows the control API by examples.
"""
