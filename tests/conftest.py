"""What every test shares."""

pytest_plugins = ["tests.support.no_skips"]
