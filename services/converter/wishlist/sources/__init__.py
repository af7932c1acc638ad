"""Where wish lists are: files, directories and URLs, each with its last good version."""
