"""What the publisher counts, in a registry of its own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from services.publisher.journal.model import LayerState

__all__ = ["Metrics"]

_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_LAYERS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, gauges and histograms of one publisher."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._layers = Gauge("publisher_layers", "Layers in the journal.", ["state"], registry=self.registry)
        self.notifications = Counter(
            "publisher_notifications", "Notifications by what became of them.", ["outcome"], registry=self.registry
        )
        self.fetched_bytes = Counter(
            "publisher_fetched_bytes", "Bytes of archives that were downloaded.", registry=self.registry
        )
        self.published_bytes = Counter(
            "publisher_published_bytes", "Bytes of files that were published.", registry=self.registry
        )
        self.prepare_seconds = Histogram(
            "publisher_prepare_seconds",
            "Time to fetch, verify and prepare a layer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.publish_seconds = Histogram(
            "publisher_publish_seconds",
            "Time of a transaction that was published.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_layers = Histogram(
            "publisher_batch_layers", "Layers of a published transaction.", buckets=_LAYERS, registry=self.registry
        )
        self.failures = Counter(
            "publisher_failures", "Failed attempts by what failed.", ["reason"], registry=self.registry
        )
        self.foreign_transaction_seconds = Gauge(
            "publisher_foreign_transaction_seconds",
            "For how long somebody else's transaction has been waited for; 0 if none is.",
            registry=self.registry,
        )
        self.spool_bytes = Gauge("publisher_spool_bytes", "Bytes in the spool.", registry=self.registry)
        self.swept_at = Gauge(
            "publisher_last_sweep_timestamp_seconds", "When the last sweep of the bucket ended.", registry=self.registry
        )
        self.sweep_found = Counter(
            "publisher_sweep_found",
            "Layers that a sweep found and no notification had announced.",
            registry=self.registry,
        )

    def render(self, counts: dict[LayerState, int]) -> bytes:
        """Write everything in Prometheus' text format."""
        for state, count in counts.items():
            self._layers.labels(state).set(count)
        return generate_latest(self.registry)
