"""Sets up the object store for the suite, once before the other services start: bucket, notification, users."""
