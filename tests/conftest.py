"""What every test shares."""

pytest_plugins = [
    "tests.support.authorities",
    "tests.support.fork_server",
    "tests.support.generated",
    "tests.support.journal_databases",
    "tests.support.no_skips",
    "tests.support.object_stores",
    "tests.support.places",
    "tests.support.soak",
    "tests.support.state_databases",
    "tests.support.stratum0",
    "tests.support.workers",
]
"""In CI a skipped test is a failed one: CI has everything that a test could miss. And what tests want on demand."""
