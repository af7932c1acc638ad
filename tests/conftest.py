"""What every test shares."""

pytest_plugins = ["tests.support.no_skips", "tests.support.object_stores", "tests.support.workers"]
"""In CI a skipped test is a failed one: CI has everything that a test could miss. And real S3 servers, on demand."""
