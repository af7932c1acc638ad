"""A converter's rounds in this process: real registry, real state, clocks that a test sets."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue, SecretStr

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.metrics import Metrics
from services.converter.model import DAY, ExactTag, Origin, Retention, SignaturePolicy, TagSelection, Wish, WishList
from services.converter.notifications import Notifications
from services.converter.rounds.publishers import Publishers
from services.converter.rounds.rounds import Rounds
from services.converter.rounds.settings import RoundsSettings
from services.converter.state.clock import MachineClock
from services.converter.state.database import StateDatabase
from services.converter.state.sqlite import SqliteState
from services.converter.state.state import State
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.image_publisher import ImagePublisher
from tests.support.oci import push_image_of_blob
from tests.support.publisher import TOKEN
from tests.support.registries import impatient

__all__ = ["REPOSITORY", "SOURCE", "Clocks", "Lists", "Rig", "Verifier", "push_small", "wish"]

REPOSITORY = RepositoryName("images.example.org")
SOURCE = "wishes.yaml"


class Clocks(MachineClock):
    """Clocks that go as they do, and that a test sets."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.booted = "first boot"
        self.up = 1000.0
        self.wall = 1_800_000_000.0

    def boot(self) -> str:
        return self.booted

    def since_boot(self) -> float:
        return self.up + time.monotonic() - self._began

    def now(self) -> float:
        return self.wall + time.monotonic() - self._began

    def pass_by(self, seconds: float) -> None:
        """Let time go by."""
        self.up += seconds
        self.wall += seconds


@dataclass(slots=True)
class Lists:
    """Wish lists that a test changes."""

    lists: list[WishList] = field(default_factory=list)

    def wish(self, *wishes: Wish, complete: bool = True, source: str = SOURCE) -> None:
        """Have one list with these wishes, besides those of other sources."""
        others = [each for each in self.lists if each.source != source]
        self.lists = [*others, WishList(source=source, wishes=wishes, complete=complete)]

    async def read(self) -> Sequence[WishList]:
        return self.lists


@dataclass(slots=True)
class Verifier:
    """Says of images what the test says."""

    refusal: Exception | None = None
    verified: dict[str, JsonValue] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Names and digests."""

    async def verify(
        self, name: ImageName, reference: ImageReference, wishes: Sequence[Wish], policies: Sequence[SignaturePolicy]
    ) -> dict[str, JsonValue] | None:
        del wishes, policies
        assert reference.digest is not None
        self.asked.append((name, reference.digest))
        if self.refusal is not None:
            raise self.refusal
        return self.verified


@dataclass(slots=True, kw_only=True)
class Rig:
    """Everything that rounds need; `rounds` opens a converter on its state, as a new process does."""

    directory: Path
    publisher: ImagePublisher
    clocks: Clocks = field(default_factory=Clocks)
    lists: Lists = field(default_factory=Lists)
    verifier: Verifier = field(default_factory=Verifier)
    metrics: Metrics = field(default_factory=Metrics)
    database: Callable[[], StateDatabase] | None = None
    """Opens what is remembered; None for a file."""

    @property
    def notifications(self) -> Path:
        """The file of notifications."""
        return self.directory / "notifications"

    @asynccontextmanager
    async def state(self) -> AsyncIterator[State]:
        """Open what is remembered."""
        database = SqliteState(self.directory / "state.sqlite") if self.database is None else self.database()
        async with State(database, machine=self.clocks) as state:
            yield state

    @asynccontextmanager
    async def rounds(self, **settings: Any) -> AsyncIterator[Rounds]:  # noqa: ANN401 - fields of the settings
        """Open a converter."""
        async with AsyncExitStack() as stack:
            state = await stack.enter_async_context(self.state())
            places = {REPOSITORY: (self.publisher.url, SecretStr(TOKEN))}
            publishers = await stack.enter_async_context(Publishers(places=places, state=state))
            registry = await stack.enter_async_context(
                RegistryClient(options=impatient(attempts=1, read_timeout=60.0, connect_timeout=60.0))
            )
            notifications = await stack.enter_async_context(Notifications(self.notifications))
            rounds = await stack.enter_async_context(
                Rounds(
                    settings=RoundsSettings(**settings),
                    state=state,
                    registry=registry,
                    publishers=publishers,
                    metrics=self.metrics,
                    notifications=notifications,
                    lists=self.lists,
                    verification=self.verifier,
                )
            )
            assert await state.database.begin(asyncio.Event())
            stack.push_async_callback(_ended, asyncio.create_task(state.database.hold()))
            await rounds.begin()
            yield rounds


async def _ended(holding: asyncio.Task[None]) -> None:
    """End the work of holding the turn; whoever has lost it is told by what it does."""
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


def wish(name: str, tags: str | TagSelection, *, line: int = 1, source: str = SOURCE, **changes: Any) -> Wish:  # noqa: ANN401 - fields of wishes
    """Make a wish for `REGISTRY/REPOSITORY` in `REPOSITORY`."""
    registry, _, repository = name.partition("/")
    made = Wish(
        registry=registry,
        repository=repository,
        tags=ExactTag(tags) if isinstance(tags, str) else tags,
        repositories=(REPOSITORY,),
        retention=Retention(replaced=14 * DAY, dropped=7 * DAY, gone=7 * DAY),
        origin=Origin(source, line, 1),
    )
    return replace(made, **changes)


async def push_small(address: str, name: str, content: bytes, *, created: str | None = None) -> Digest:
    """Push an image whose only layer is this, uncompressed, and that says so when it was made; return its digest."""
    async with RegistryClient(options=impatient(read_timeout=60.0)) as client:
        reference = ImageReference.parse(f"{address}/{name}")
        layer = await client.push_blob(reference, content)
        await push_image_of_blob(client, reference, layer, len(content), created=created)
        return (await client.manifest(reference)).digest
