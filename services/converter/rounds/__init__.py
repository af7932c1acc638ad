"""Rounds: ask the registries what has changed, and the publishers for what has."""
