"""What the publisher counts, in a registry of its own."""

from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from services.publisher.status.model import PublisherStatus

__all__ = ["CollectionOutcome", "Metrics"]

_SECONDS: Final = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_LAYERS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


class CollectionOutcome(StrEnum):
    """What became of a collection."""

    DONE = "done"
    POSTPONED = "postponed"
    FAILED = "failed"


class Metrics:
    """Counters, gauges and histograms of one publisher."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._publishers = Gauge(
            "publisher_publishers",
            "Publishers that share the journal: who leads, follows, has ended, or has gone without that.",
            ["standing"],
            registry=self.registry,
        )
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
        self.image_seconds = Histogram(
            "publisher_image_seconds",
            "Time of the steps of images that were done.",
            ["step"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.known_bytes = Counter(
            "publisher_known_bytes",
            "Bytes of archives of images that were not downloaded, since the repository had their layers.",
            registry=self.registry,
        )
        self.image_failures = Counter(
            "publisher_image_failures",
            "Failed attempts to publish images, by registry and by what failed.",
            ["registry", "reason"],
            registry=self.registry,
        )
        self.mirror_damage = Counter(
            "publisher_mirror_damage",
            "Layers that a registry's mirror gave damaged, and that the registry itself was asked for.",
            ["registry"],
            registry=self.registry,
        )
        self.foreign_transaction_seconds = Gauge(
            "publisher_foreign_transaction_seconds",
            "For how long somebody else's transaction has been waited for; 0 if none is.",
            registry=self.registry,
        )
        self._refused = Gauge(
            "publisher_refused_layers",
            "Failed layers that are not tried again by themselves, but for those of other repositories.",
            registry=self.registry,
        )
        self._elsewhere = Gauge(
            "publisher_other_repositories_layers",
            "Layers that were refused since they are for other repositories.",
            registry=self.registry,
        )
        self._oldest_seconds = Gauge(
            "publisher_oldest_unpublished_seconds",
            "Time since the first layer was announced that is neither published nor refused; 0 if there is none.",
            registry=self.registry,
        )
        self._images = Gauge("publisher_images", "Images in the journal.", ["state"], registry=self.registry)
        self._refused_images = Gauge(
            "publisher_refused_images", "Failed images that are not tried again by themselves.", registry=self.registry
        )
        self._oldest_image_seconds = Gauge(
            "publisher_oldest_unpublished_image_seconds",
            "Time since the first image was asked for that is neither published as it was asked for, nor refused; "
            "0 if there is none.",
            registry=self.registry,
        )
        self._paused = Gauge("publisher_paused", "1 while publishing is paused.", registry=self.registry)
        self._transaction_seconds = Gauge(
            "publisher_transaction_seconds",
            "Time since the transaction under way was begun; 0 if there is none.",
            registry=self.registry,
        )
        self._spool_bytes = Gauge("publisher_spool_bytes", "Bytes in the spool.", registry=self.registry)
        self._spool_limit = Gauge(
            "publisher_spool_limit_bytes", "Most bytes that the spool may hold.", registry=self.registry
        )
        self._trusted_until = Gauge(
            "publisher_whitelist_expiry_timestamp_seconds",
            "When clients stop to trust the repository; absent where that is not known, or never.",
            ["repository"],
            registry=self.registry,
        )
        self._disk_free = Gauge(
            "publisher_disk_free_bytes",
            "Bytes that can still be written where a directory of the publisher's or of cvmfs_server's is.",
            ["directory"],
            registry=self.registry,
        )
        self.swept_at = Gauge(
            "publisher_last_sweep_timestamp_seconds", "When the last sweep of the bucket ended.", registry=self.registry
        )
        self.sweep_found = Counter(
            "publisher_sweep_found",
            "Layers that a sweep found and no notification had announced.",
            registry=self.registry,
        )
        self.checked_at = Gauge(
            "publisher_last_check_timestamp_seconds",
            "When the last check of repository, journal and bucket ended; 0 if there was none since the start.",
            registry=self.registry,
        )
        self.disagreements = Gauge(
            "publisher_disagreements",
            "What the last check found that something has to be done about.",
            registry=self.registry,
        )
        self.collections = Counter(
            "publisher_collections",
            "Collections by what became of them: done, postponed while publishing is paused, or failed.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in CollectionOutcome:
            self.collections.labels(outcome)
        self.collected_at = Gauge(
            "publisher_last_collection_timestamp_seconds",
            "When the last collection ended that was done; 0 if there was none since the start.",
            registry=self.registry,
        )
        self.collected_layers = Counter(
            "publisher_collected_layers", "Layers that collections took out.", registry=self.registry
        )
        self.uncollectable_layers = Gauge(
            "publisher_uncollectable_layers",
            "Layers that the last collection could not take out.",
            registry=self.registry,
        )
        self.uploads_aborted = Counter(
            "publisher_uploads_aborted",
            "Uploads to the bucket that nobody completed, and whose parts a sweep removed.",
            registry=self.registry,
        )

    def render(self, status: PublisherStatus) -> bytes:
        """Write everything in Prometheus' text format."""
        for standing, count in status.publishers.counts.items():
            self._publishers.labels(standing).set(count)
        for state, count in status.layers.counts.items():
            self._layers.labels(state).set(count)
        self._refused.set(status.layers.refused - status.layers.elsewhere)
        self._elsewhere.set(status.layers.elsewhere)
        self._oldest_seconds.set(status.oldest_age)
        for image_state, count in status.images.counts.items():
            self._images.labels(image_state).set(count)
        self._refused_images.set(status.images.refused)
        self._oldest_image_seconds.set(status.oldest_image_age)
        self._paused.set(status.pause is not None)
        self._transaction_seconds.set(status.transaction_age)
        self._spool_bytes.set(status.spool_used)
        self._spool_limit.set(status.spool_limit)
        if status.trusted_until is not None:
            self._trusted_until.labels(status.repository).set(status.trusted_until)
        for name, disk in status.disks.items():
            if disk is not None:
                self._disk_free.labels(name).set(disk.free)
        return generate_latest(self.registry)
