"""What the converter counts, in a registry of its own."""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from services.converter.state.model import StateSummary

__all__ = ["Metrics"]

_SECONDS: Final = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class Metrics:
    """Counters, gauges and histograms of one converter."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.works = Gauge(
            "converter_works",
            "Whether this converter works (1), or stands by while another one with the same database does (0).",
            registry=self.registry,
        )
        self.polls = Counter(
            "converter_polls",
            "Polls of wishes by registry and outcome.",
            ["registry", "outcome"],
            registry=self.registry,
        )
        self.asked = Counter(
            "converter_registry_requests",
            "Images that a registry was asked about.",
            ["registry"],
            registry=self.registry,
        )
        self.changed = Counter(
            "converter_images_changed", "Images found to be new or changed.", ["registry"], registry=self.registry
        )
        self.failures = Counter(
            "converter_failures",
            "Failures by registry and by what failed.",
            ["registry", "what"],
            registry=self.registry,
        )
        self.hints = Counter(
            "converter_hints_followed",
            "Hints that were looked into, by whether a wish was about them.",
            ["outcome"],
            registry=self.registry,
        )
        self.published = Counter(
            "converter_images_published", "Images that have been published.", ["repository"], registry=self.registry
        )
        self.fetched_bytes = Counter(
            "converter_fetched_bytes",
            "Bytes of layers that published images needed.",
            ["repository"],
            registry=self.registry,
        )
        self.saved_bytes = Counter(
            "converter_saved_bytes",
            "Bytes of layers of published images that the repository had already.",
            ["repository"],
            registry=self.registry,
        )
        self.thin_images = Counter("converter_thin_images_pushed", "Thin images pushed.", registry=self.registry)
        self.removed = Counter(
            "converter_images_removed", "Images that were removed.", ["repository"], registry=self.registry
        )
        self.withheld = Gauge(
            "converter_removals_withheld",
            "Images that are due to be removed and are not, as they are more than a run may remove.",
            registry=self.registry,
        )
        self.publish_seconds = Histogram(
            "converter_image_seconds",
            "Time from when an image was found new or changed until it was published.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._copies = Gauge("converter_copies", "Images in repositories by state.", ["state"], registry=self.registry)
        self._wishes = Gauge("converter_wishes", "Wishes.", registry=self.registry)
        self._failing = Gauge("converter_failing_wishes", "Wishes whose last poll failed.", registry=self.registry)
        self._missing = Gauge(
            "converter_missing_images", "Images that registries say are gone.", registry=self.registry
        )
        self._dropped = Gauge("converter_dropped_images", "Images that no wish names any more.", registry=self.registry)
        self._thin_waiting = Gauge(
            "converter_thin_images_waiting", "Thin images that are not pushed yet.", registry=self.registry
        )
        self._thin_failing = Gauge(
            "converter_thin_images_failing", "Thin images whose last push failed.", registry=self.registry
        )
        self._oldest = Gauge(
            "converter_oldest_wish_seconds",
            "For how long the image that has waited longest has not been what it should be; 0 if there is none.",
            registry=self.registry,
        )
        self._unpolled = Gauge(
            "converter_oldest_poll_seconds",
            "Time since the wish was polled that has waited longest; 0 if none has been.",
            registry=self.registry,
        )
        self.lists_broken = Gauge(
            "converter_incomplete_wish_lists",
            "Wish lists that cannot be read, or not whole: an earlier version counts.",
            registry=self.registry,
        )

    def render(self, summary: StateSummary) -> bytes:
        """Write everything in Prometheus' text format."""
        for state, count in summary.copies.items():
            self._copies.labels(state).set(count)
        self._wishes.set(summary.wishes)
        self._failing.set(summary.failing_wishes)
        self._missing.set(summary.missing)
        self._dropped.set(summary.dropped)
        self._thin_waiting.set(summary.thin_waiting)
        self._thin_failing.set(summary.thin_failing)
        self._oldest.set(_age(summary.oldest_wanted_at))
        self._unpolled.set(_age(summary.oldest_polled_at))
        return generate_latest(self.registry)


def _age(at: float | None) -> float:
    return 0.0 if at is None else max(0.0, time.time() - at)
