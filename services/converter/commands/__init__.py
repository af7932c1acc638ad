"""The commands of `converter`, one a module."""
