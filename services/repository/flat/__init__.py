"""What a flat image is, whatever kind of repository holds it: a root file system that Apptainer runs as it is.

It lies in `.flat/XX/HEX`, by the digest of the image's configuration (DUCC's path), and shows what an overlay of the
image's layers shows, but for the permissions that `modes` mends, the names that `entries` leaves out, and what
`singularity` adds.
"""
