"""containerd's interfaces, as far as they are used: its field numbers and package names, which are what the wire needs.

`python -m harness.protocols` generates the code from the `.proto` files.
"""
