"""Whether repository, journal and bucket agree about every layer."""
