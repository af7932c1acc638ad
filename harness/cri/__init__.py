"""A node of Kubernetes without its kubelet: containerd, asked by the kubelet's own interface (CRI).

`runtime.proto` holds as much of that interface as is used: its field numbers and package names, which are what the wire
needs.
"""
