"""Benchmarks: the suite beside overlay2, in one run under the same Docker.

A row of the result compares *subjects* that do the same thing. Their runs alternate, in an order that turns round every
time, each after a sync so that none writes back what another one left; the median counts. A ratio is a median over that
of the first subject.
"""
