"""From an announcement to a revision: fetch, verify, prepare, batch, publish."""
