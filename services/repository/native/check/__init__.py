"""Finds every defect of a repository, names the path that has it, and says what to do.

- `checker` goes through head, tags, catalogs and objects, on all cores.
- `trust` is about the files that clients fetch first.
- `rules` says in SQL what must hold for the rows of one catalog; `catalogs` what SQL cannot say.
- `nesting` is about what catalogs say of one another.
- `flat` compares flat images with what their layers show, which `layer_stack` finds.
- `objects` reads the content that catalogs name.
"""
