"""A repository written through the real `cvmfs_server`.

`repository` is what the publisher uses; `tool` runs the program, by `program`, which can outlive the publisher;
`opener` and `claim` mark a transaction as one's own; `names` knows the paths that CVMFS treats in a way of its own.
"""
