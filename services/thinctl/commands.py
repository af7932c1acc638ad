"""What the commands do."""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pydantic import SecretStr

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.common.publisher_api import (
    CheckSummary,
    Disagreement,
    Layer,
    NotKnownError,
    PublisherApi,
    PublisherRefusedError,
    PublisherTimeoutError,
    Status,
)
from services.thinctl.errors import DisagreementError
from services.thinctl.tables import say

__all__ = [
    "Access",
    "Checked",
    "bounded",
    "check",
    "layer",
    "layers",
    "pause",
    "resume",
    "retry",
    "retry_failed",
    "retry_found",
    "status",
    "sweep",
]

_PREFIX = re.compile(r"[0-9a-f]{4,63}")
_PAGE: Final = 1000
_MENDED_BY_RETRY: Final = frozenset(
    {"not_in_repository", "not_recorded", "image_not_in_repository", "image_former", "image_not_shown"}
)
"""Disagreements of which the layer or image that is named has to be tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which publisher is asked."""

    url: str
    token: SecretStr | None
    """What lets one change something."""

    def open(self) -> PublisherApi:
        """Return the client, a context manager."""
        return PublisherApi(url=self.url, token=self.token)


@dataclass(slots=True)
class Checked:
    """What a check has come to."""

    layers: int = 0
    """Layers that were compared."""
    found: dict[str, list[Disagreement]] = field(default_factory=dict)
    """Disagreements by their kinds."""

    def demand_agreement(self) -> None:
        """Raise if something has to be mended.

        Raises
        ------
        DisagreementError
            It has.
        """
        count = sum(not item.harmless for items in self.found.values() for item in items)
        if count:
            raise DisagreementError(f"repository, journal and bucket disagree about {count} of {self.layers} layers")

    def document(self) -> dict[str, object]:
        """Write it for scripts."""
        items = [item.model_dump(mode="json") for items in self.found.values() for item in items]
        return {"layers": self.layers, "disagreements": items}


async def status(access: Access) -> Status:
    """Ask how the publisher is."""
    async with access.open() as api:
        return await api.status()


async def layers(access: Access, query: Sequence[tuple[str, str]], *, limit: int | None) -> tuple[list[Layer], bool]:
    """List layers that a query selects; return them, and whether there are more than the limit allows."""
    found: list[Layer] = []
    async with access.open() as api:
        first = [*query, ("order", "recent"), ("limit", str(min(_PAGE, (limit or _PAGE) + 1)))]
        page = await api.layers(first)
        while True:
            found += page.layers
            following = None if limit is not None and len(found) > limit else await api.following(page)
            if following is None:
                break
            page = following
    return found[:limit], limit is not None and len(found) > limit


async def layer(access: Access, digest: str) -> Layer:
    """Show a layer, by the start of its digest."""
    async with access.open() as api:
        return await _named(api, digest)


async def retry(access: Access, digests: Sequence[str], *, timeout: float | None) -> list[Layer]:  # noqa: ASYNC109 - the user's
    """Have layers tried again.

    Parameters
    ----------
    digests
        The starts of their digests.
    timeout
        How long to wait until they are published, in seconds; None for not at all.
    """
    async with access.open() as api:
        found = [await _named(api, digest) for digest in digests]
        wanted = [Digest(item.digest) for item in found]
        restarted = [await api.retry(digest) for digest in wanted]
        if timeout is None:
            return restarted
        async with bounded(timeout, "the layers are not all published"):
            for digest in wanted:
                await api.published(digest, report=partial(_say_state, digest))
        return [await _named(api, digest) for digest in wanted]


def _say_state(digest: Digest, state: str) -> None:
    say(f"{digest.short}: {state}")


async def retry_failed(access: Access) -> int:
    """Have every failed layer tried again; return how many there are."""
    async with access.open() as api:
        return await api.retry_failed()


async def sweep(access: Access, *, timeout: float) -> int:  # noqa: ASYNC109 - the user's
    """Have the bucket swept and wait for the end of it; return how many layers there are to work on."""
    async with access.open() as api:
        number = await api.sweep()
        async with bounded(timeout, "the sweep has not ended"):
            await api.wait(lambda: _swept(api, number))
        ended = (await api.status()).sweep
    if ended.error is not None:
        raise PublisherRefusedError(f"the sweep failed: {ended.error}; it is tried again by itself")
    return ended.found


async def _swept(api: PublisherApi, number: int) -> bool:
    return (await api.status()).sweep.ended >= number


async def pause(access: Access, reason: str, *, timeout: float | None) -> Status:  # noqa: ASYNC109 - the user's
    """Have nothing new published.

    Parameters
    ----------
    timeout
        How long to wait for the end of the transaction that is under way, in seconds; None for not at all.
    """
    async with access.open() as api:
        paused = await api.pause(reason)
        if timeout is None or paused.transaction is None:
            return paused
        say(f"paused; waiting for the end of a transaction of {len(paused.transaction.layers)} layers")
        async with bounded(timeout, "the transaction that was under way has not ended"):
            await api.wait(lambda: _idle(api))
        return await api.status()


async def _idle(api: PublisherApi) -> bool:
    return (await api.status()).transaction is None


async def resume(access: Access) -> Status:
    """Have publishing go on."""
    async with access.open() as api:
        return await api.resume()


async def check(access: Access) -> Checked:
    """Have repository, journal and bucket compared."""
    checked = Checked()
    async with access.open() as api:
        async for item in api.check(progress=lambda count: say(f"{count} layers compared")):
            if isinstance(item, CheckSummary):
                checked.layers = item.layers
            else:
                checked.found.setdefault(item.kind, []).append(item)
    return checked


async def retry_found(access: Access, checked: Checked) -> int:
    """Have what a check has found tried again, where that mends it; return how much that is.

    Parameters
    ----------
    checked
        What the check has come to; what is tried again is no part of it any more.
    """
    mended = [checked.found.pop(kind) for kind in sorted(_MENDED_BY_RETRY & checked.found.keys())]
    items = [*itertools.chain.from_iterable(mended)]
    async with access.open() as api:
        for item in items:
            if item.image is None:
                await api.retry(Digest(item.digest))
            else:
                await api.images.retry(ImageName(item.image))
    return len(items)


async def _named(api: PublisherApi, digest: str) -> Layer:
    """Find the layer whose digest begins so."""
    digest = digest.removeprefix("sha256:")
    if not _PREFIX.fullmatch(digest):
        found = await api.layer(Digest(digest))
        matching = [] if found is None else [found]
    else:
        matching = list((await api.layers([("digest", digest), ("limit", "2")])).layers)
    if len(matching) > 1:
        raise InvalidValueError(f"more than one layer begins with {digest}: give more digits")
    if not matching:
        raise NotKnownError(
            f"no layer {digest} has been announced or found in the bucket: is it uploaded? `thinctl sweep` looks for it"
        )
    return matching[0]


@asynccontextmanager
async def bounded(seconds: float, what: str) -> AsyncGenerator[None, None]:
    """Bound a wait.

    Parameters
    ----------
    seconds
        How long it may last.
    what
        What has not happened if it lasts longer.

    Raises
    ------
    PublisherTimeoutError
        It has lasted so long.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise PublisherTimeoutError(
            f"{what} after {seconds:g} s; the publisher goes on: see `thinctl status`, or give a larger --timeout"
        ) from None
