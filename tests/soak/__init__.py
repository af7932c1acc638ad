"""Faults and load, short in `make test` and long in `make soak`."""
