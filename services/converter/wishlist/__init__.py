"""Wish lists: DUCC's recipes and the suite's own format, from files, directories and URLs."""
