"""Thin images of what has been published."""
