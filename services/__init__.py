"""Thin Docker images on CernVM-FS: the services of the suite."""
