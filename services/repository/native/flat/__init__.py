"""Flat images: root file systems made of the rows that the catalogs of layers have. No content is read or written.

- `layer_rows` reads the rows of layers, of which `kept_rows` keeps those that were used last.
- `merge` makes one tree of them, as an overlay of the layers shows it.
- `generated` puts into it what is generated.
- `catalogs` writes that tree's catalogs.
- `composer` does all this for one image; `images` has it done for those that a publisher puts.
- `places` is where flat images are in the repository.
"""
