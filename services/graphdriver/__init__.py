"""The Docker graphdriver plugin on the worker node."""
