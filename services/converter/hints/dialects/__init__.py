"""The dialects of registries: one module each, and `parse` for all of them."""
