"""The S3 bucket that layers are exchanged through; the one place that talks to it.

Its settings load little. The rest loads the client, which takes as much memory as all else that a node runs.
"""
