"""Thin images: made of what a registry says of the originals, and pushed."""
