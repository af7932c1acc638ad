"""The containerd snapshotter and diff service on the worker node."""
