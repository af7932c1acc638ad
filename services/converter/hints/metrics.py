"""What is counted of hints."""

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["HintMetrics"]


class HintMetrics:
    """Counters of the requests that bring hints and of the hints in them, and how many wait.

    Parameters
    ----------
    registry
        The converter's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "converter_hint_requests",
            "Requests that bring hints, by endpoint (`-` for none that is known) and answer.",
            ["endpoint", "status"],
            registry=registry,
        )
        self.events = Counter(
            "converter_hint_events",
            "Hints by endpoint and what became of them: taken, repeated, unmatched, ignored, malformed, not_allowed.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.pending = Gauge("converter_hints_pending", "Hints that have not been looked into yet.", registry=registry)
