"""Measured promises: each module is one benchmark, with a peer in the same run where there is one.

`python -m benchmarks NAME` prints figures for people on standard error and one JSON line each on
standard output.
"""
