"""Image stores of podman's (containers-storage, driver `overlay`) that are read where they lie in a repository.

A site lists one under `additionalimagestores` in storage.conf, and podman runs its images with nothing pulled. What is
in a store is names and links: the layers are those of the repository, where the links lead.
"""
