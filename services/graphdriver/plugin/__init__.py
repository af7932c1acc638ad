"""The Docker graphdriver plugin protocol: HTTP on a unix socket, in front of the core."""
