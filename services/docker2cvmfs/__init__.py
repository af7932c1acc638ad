"""Converter: any registry image becomes a thin image."""
