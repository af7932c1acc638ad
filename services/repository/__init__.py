"""The kinds of repository that layers are published to, one module each behind one interface."""
