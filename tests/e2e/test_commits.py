"""Commits of thin containers: uploaded, run at once, published, run elsewhere."""
