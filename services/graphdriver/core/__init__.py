"""What the driver does, without knowing who asks: layers, lineage, unions, repositories, commits.

Nothing here knows Docker or its plugin protocol: a second front end (a containerd snapshotter) calls the same classes.
"""
