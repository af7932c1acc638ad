"""Inputs that want to do harm, kind by kind: the corpus that tests/soak tries whole, and changes at random."""
