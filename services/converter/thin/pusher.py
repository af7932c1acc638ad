"""Pushes thin images; each on its own, and again when that fails. The same original gives the same digest anywhere."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from services.common.digest import Digest
from services.common.errors import SuiteError
from services.converter.rounds.side_by_side import failures
from services.converter.rounds.waiting import Backoff
from services.converter.state.model import ThinRecord
from services.converter.state.state import State
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from services.thin_image.image import build_thin_image
from services.thin_image.push import push_thin

__all__ = ["ThinPusher"]

_log = structlog.get_logger(__name__)

_AT_ONCE = 100


class ThinPusher:
    """Makes thin images and pushes them.

    Parameters
    ----------
    state
        What is to be pushed.
    registry
        Where the originals are, and where thin images go.
    backoff
        How long is waited after failures.
    pushed
        Told of each that was pushed, with its digest.
    dry_run
        Whether nothing is pushed but in the log.
    """

    def __init__(
        self,
        *,
        state: State,
        registry: RegistryClient,
        backoff: Backoff,
        pushed: Callable[[ThinRecord, Digest], Awaitable[None]],
        dry_run: bool,
    ) -> None:
        self._state = state
        self._registry = registry
        self._backoff = backoff
        self._pushed = pushed
        self._dry_run = dry_run

    async def drain(self) -> int:
        """Push all that is due; return how many failed.

        Raises
        ------
        StateError
            The state failed.
        """
        failed = 0
        while records := await self._state.thin.due(_AT_ONCE):
            if self._dry_run:
                for record in records:
                    _log.info("would push thin image", image=record.name, reference=record.reference)
                return 0
            failed += await failures(records, self._push)
        return failed

    async def _push(self, record: ThinRecord) -> bool:
        log = _log.bind(image=record.name, thin_image=record.reference)
        try:
            digest = await self._made(record)
        except SuiteError as error:
            log.warning("thin image cannot be pushed", reason=str(error))
            due = self._state.clock.steady() + self._backoff.pause(record.attempts)
            await self._state.thin.failed(record, reason=str(error), due=due)
            return False
        await self._state.thin.pushed(record, digest)
        log.info("thin image pushed", digest=digest)
        await self._pushed(record, digest)
        return True

    async def _made(self, record: ThinRecord) -> Digest:
        original = replace(ImageReference.parse(record.name), digest=record.digest)
        images = [await self._registry.image(original, platform) for platform in record.platforms]
        thin = [build_thin_image(image, record.repository, record.layout) for image in images]
        # One that has lost its turn may know an earlier image than has been pushed since.
        await self._state.database.confirm()
        return await push_thin(self._registry, ImageReference.parse(record.reference), thin)
