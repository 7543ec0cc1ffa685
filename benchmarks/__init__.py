"""Measurements against floors and peers, in one run; `python -m benchmarks --help`."""
