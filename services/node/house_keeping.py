"""What has to be done now and then: what nothing needs any more goes."""

import structlog

from services.node.cvmfs.finder import LayerFinder
from services.node.errors import LineageError
from services.node.local_copies import LocalCopies
from services.node.union import UnionBuilder
from services.node.uses import Uses

__all__ = ["HouseKeeper"]

_log = structlog.get_logger(__name__)


class HouseKeeper:
    """Removes what has served its purpose.

    Parameters
    ----------
    builder
        Knows what serves unions, and whether one is being made.
    copies
        Local copies of layers that are not published yet.
    finder
        Looks whether they are published.
    uses
        Told when a look has ended.
    """

    def __init__(self, *, builder: UnionBuilder, copies: LocalCopies, finder: LayerFinder, uses: Uses) -> None:
        self._builder = builder
        self._copies = copies
        self._finder = finder
        self._uses = uses
        self._untidy = True

    def note_removal(self) -> None:
        """Note that something may be left which nothing needs any more."""
        self._untidy = True

    async def tidy(self) -> None:
        """Remove what served the unions of layers that are gone; where it cannot be done now, the next call does."""
        if not self._untidy:
            return
        self._untidy, done = False, False
        try:
            done = await self._builder.tidy()
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
