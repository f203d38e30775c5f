"""The benchmark: the real API under a bounded load on loopback, in CPU time a request.

`make bench` starts everything itself, prints a table, and with `WRITE=1` puts the figures into docs/benchmarks.md.
"""
