"""Push and pull through a registry, save and load."""
