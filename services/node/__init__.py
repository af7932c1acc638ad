"""What a worker node does with layers, without knowing who asks: lineage, unions, masks, repositories, commits.

Nothing here knows Docker or containerd, or the protocol of either: each front end calls the same classes.
"""
