"""What both sides speak: digests, descriptors, layer archives, the object store, settings, logging."""
