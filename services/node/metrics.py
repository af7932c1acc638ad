"""What a front end counts, in a registry of its own.

No label has a value that comes from outside: methods are those of the protocol, repositories those that are allowed.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from services.common.repository_name import RepositoryName
from services.node.state import NodeState

__all__ = ["Activity", "Course", "NodeMetrics", "Outcome"]

_SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Outcome(StrEnum):
    """How something ended."""

    OK = "ok"
    DECLINED = "declined"
    """Left to somebody else, by design."""
    REFUSED = "refused"
    """What was asked for contradicts itself or what is there, and who asked was told so."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Whoever asked for it waits no more."""


@dataclass(slots=True)
class Course:
    """One piece of work."""

    outcome: Outcome | None = None
    """How it ends; what it raises says so where nobody else does."""


class Activity:
    """One kind of work: `NAME_total` by outcome, `NAME_seconds`, `NAME_under_way`.

    Parameters
    ----------
    name
        Of the series, a plural.
    what
        For people, in the plural.
    labels
        What it is told apart by.
    registry
        Where the series are.
    """

    def __init__(self, name: str, what: str, *labels: str, registry: CollectorRegistry) -> None:
        self._total = Counter(name, f"Number of {what}, by how they ended.", [*labels, "outcome"], registry=registry)
        self._seconds = Histogram(
            f"{name}_seconds", f"Seconds that {what} took.", labels, buckets=_SECONDS, registry=registry
        )
        self._under_way = Gauge(
            f"{name}_under_way", f"Number of {what} that have not ended.", labels, registry=registry
        )

    def expect(self, *kind: str) -> None:
        """Show a kind of work before there is any: what first shows with a count of 1 has not increased."""
        for outcome in Outcome:
            self._total.labels(*kind, outcome)

    @contextmanager
    def one(self, *kind: str) -> Iterator[Course]:
        """Count what is done in the context, and how it ends.

        Parameters
        ----------
        kind
            The labels' values, each one of few.
        """
        course = Course()
        begun = time.perf_counter()
        under_way, seconds = self._under_way, self._seconds
        if kind:
            under_way, seconds = under_way.labels(*kind), seconds.labels(*kind)
        under_way.inc()
        try:
            yield course
        except asyncio.CancelledError:
            course.outcome = Outcome.CANCELLED
            raise
        except BaseException:
            course.outcome = course.outcome or Outcome.FAILED
            raise
        finally:
            under_way.dec()
            seconds.observe(time.perf_counter() - begun)
            self._total.labels(*kind, course.outcome or Outcome.OK).inc()


class NodeMetrics:
    """Counters, histograms and gauges of one process of a front end."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Activity("thin_node_operations", "operations", "method", registry=self.registry)
        self.publication_waits = Activity(
            "thin_node_publication_waits",
            "waits for layers that were not published yet",
            "repository",
            registry=self.registry,
        )
        self.looks = Activity(
            "thin_node_repository_looks", "looks for layers in a repository", "repository", registry=self.registry
        )
        self.uploads = Activity("thin_node_uploads", "uploads of committed layers", registry=self.registry)
        self.uploads.expect()
        self.uploaded_bytes = Counter(
            "thin_node_uploaded_bytes", "Bytes of layer archives that the object store took.", registry=self.registry
        )
        self.memory_waits = Activity(
            "thin_node_memory_waits", "waits of work for memory that other work holds", registry=self.registry
        )
        self.work_memory = Gauge(
            "thin_node_work_memory_bytes", "Bytes of memory that work on layers may hold now.", registry=self.registry
        )
        self._initialised = Gauge(
            "thin_node_initialised", "1 once there is an engine that is served.", registry=self.registry
        )
        self._copies = Gauge(
            "thin_node_local_copies", "Committed layers that no repository shows yet.", registry=self.registry
        )
        self._copy_bytes = Gauge(
            "thin_node_local_copies_bytes", "Bytes that the copies of them take.", registry=self.registry
        )
        self._oldest_copy = Gauge(
            "thin_node_oldest_local_copy_seconds",
            "Time since the first of them was committed; 0 if there is none.",
            registry=self.registry,
        )
        self._users = Gauge(
            "thin_node_repository_users",
            "Containers and look-ups that use a repository.",
            ["repository"],
            registry=self.registry,
        )
        self._mounted = Gauge(
            "thin_node_repository_mounted", "1 while a repository is mounted.", ["repository"], registry=self.registry
        )
        self._hung = Gauge(
            "thin_node_repository_hung_lookups",
            "Look-ups in a repository that have not been answered in time.",
            ["repository"],
            registry=self.registry,
        )

    def render(self, state: NodeState | None) -> bytes:
        """Write everything in Prometheus' text format.

        Parameters
        ----------
        state
            How the node is; None as long as there is no engine that is served.
        """
        self._initialised.set(state is not None)
        if state is not None:
            self._copies.set(state.copies)
            self._copy_bytes.set(state.copy_bytes)
            self._oldest_copy.set(state.oldest_copy_age)
            for repository in state.repositories:
                self._show(repository.name, users=repository.users, mounted=repository.mounted, hung=repository.hung)
        return generate_latest(self.registry)

    def _show(self, name: RepositoryName, *, users: int, mounted: bool, hung: int) -> None:
        self._users.labels(name).set(users)
        self._mounted.labels(name).set(mounted)
        self._hung.labels(name).set(hung)
