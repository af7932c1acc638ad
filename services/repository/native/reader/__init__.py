"""Reads and verifies a repository, whoever has written it; knows nothing of the writer."""
