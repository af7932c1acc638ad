"""What has to be done now and then: what nothing needs any more goes."""

from typing import Protocol

import structlog

from services.node.cvmfs.finder import LayerFinder
from services.node.errors import LineageError
from services.node.local_copies import LocalCopies
from services.node.uses import Uses

__all__ = ["HouseKeeper", "TidiedUnions"]

_log = structlog.get_logger(__name__)


class TidiedUnions(Protocol):
    """What knows of the unions of a front end."""

    async def tidy(self) -> bool:
        """Remove what serves unions that are gone, unless one is being made; return whether it has been done.

        Raises
        ------
        LineageError
            It is not known what is needed.
        """


class HouseKeeper:
    """Removes what has served its purpose.

    Parameters
    ----------
    unions
        Knows what serves unions, and whether one is being made.
    copies
        Local copies of layers that are not published yet.
    finder
        Looks whether they are published.
    uses
        Told when a look has ended.
    """

    def __init__(self, *, unions: TidiedUnions, copies: LocalCopies, finder: LayerFinder, uses: Uses) -> None:
        self._unions = unions
        self._copies = copies
        self._finder = finder
        self._uses = uses
        self._untidy = True

    def note_removal(self) -> None:
        """Note that something may be left which nothing needs any more."""
        self._untidy = True

    async def keep(self) -> None:
        """Do what can be done now; a fault must not end a program under running containers."""
        try:
            await self.retire_copies()
            await self.tidy()
        except Exception:  # noqa: BLE001 - whatever it is
            # What could have gone stays, so nothing is lost; the next round tries again.
            _log.exception("house_keeping_failed")

    async def tidy(self) -> None:
        """Remove what served the unions of layers that are gone; where it cannot be done now, the next call does."""
        if not self._untidy:
            return
        self._untidy, done = False, False
        try:
            done = await self._unions.tidy()
        except LineageError as error:
            _log.warning("masks_kept", reason=str(error))
        finally:
            self._untidy |= not done

    async def retire_copies(self) -> None:
        """Drop the local copies whose layers now show in their repositories."""
        copies = self._copies.all()
        if not copies:
            return
        holder = "retire-copies"
        try:
            findings = await self._finder.find([copy.url for copy in copies], holder=holder)
            for error in findings.failures:
                _log.warning("copies_kept", reason=str(error))
            for copy in copies:
                if copy.url in findings.found:
                    await self._copies.drop(copy.archive.digest)
                    self.note_removal()
                    _log.info("local_copy_dropped", digest=copy.archive.digest, url=copy.url)
        finally:
            self._uses.forget(holder)
