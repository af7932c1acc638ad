"""CVMFS on this machine: the one package that looks into repositories and runs the client's programs.

A repository is either there already (`host_repositories`: `/cvmfs/<name>`, where the look-up itself may make autofs
mount it) or mounted by the driver (`client_repositories`: `cvmfs2`, counted by who uses it). Every touch of a
repository runs in a thread with a bound (`repository_io`), since a file system that is served over a network can hang.
`finder` finds layers in repositories.
"""

__all__: list[str] = []
