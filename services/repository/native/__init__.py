"""A repository in CVMFS's own format, written without `cvmfs_server`.

- `records` is what reader and writer share: content hashes, flags, counters, schemas. Nothing else is shared, so that
  the reader can judge the writer.
- `storage` holds objects and the few mutable files, in a directory or in a bucket.
- `writer` turns layers into objects, catalogs and revisions.
- `reader` walks and verifies what any writer has published.
- `signer` is all that the writer knows about keys.
"""
