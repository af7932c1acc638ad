"""Turns layers into objects, catalogs and revisions."""
