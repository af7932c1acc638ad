"""The page at `/`: the publisher, for people."""
