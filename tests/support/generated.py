"""How Hypothesis judges tests that make up their inputs: by what is wrong, never by how long it takes here."""

from hypothesis import HealthCheck, settings

# Workers share the processors, so that making up an input may take as long as anything.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
