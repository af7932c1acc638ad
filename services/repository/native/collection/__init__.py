"""Garbage collection: deleting the objects that no kept revision reaches."""
