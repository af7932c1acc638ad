"""Layer archives, both ways: a tar stream and an overlay directory.

`unpack` and `survey` read a layer's uncompressed tar stream, `pack` writes one from an overlay upper directory, and
`compression` adds the compressed form that is stored, with both of its digests. A layer archive is hostile input: it is
checked completely while it streams, and nothing in it is taken on trust.
"""
