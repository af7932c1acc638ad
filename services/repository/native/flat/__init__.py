"""Flat images: root file systems made of the rows that the catalogs of layers have. No content is read or written.

- `layer_rows` reads the rows of layers.
- `merge` makes one tree of them, as an overlay of the layers shows it.
- `catalogs` writes that tree's catalogs.
- `places` is where flat images are in the repository.
"""
