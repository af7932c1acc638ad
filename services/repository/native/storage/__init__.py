"""Where the files of a repository are: one module per kind of storage."""
