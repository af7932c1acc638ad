"""`thin-repository`: what operators do to a native repository, one module per command."""
