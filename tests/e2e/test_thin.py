"""Thin images run: order, deletions, two repositories, waiting, what is allowed."""
