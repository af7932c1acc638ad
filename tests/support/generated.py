"""How Hypothesis judges tests that make up their inputs: by what is wrong, never by how long it takes here."""

import os

from hypothesis import HealthCheck, settings

# Workers share the processors, so that making up an input may take as long as anything. CI tries the same inputs every
# time: it judges a change, and what others find is found by everybody's own runs.
settings.register_profile(
    "shared machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
    database=None,
)
settings.load_profile("shared machine")
