"""Builds with the classic builder and BuildKit, of regular and of thin images."""
