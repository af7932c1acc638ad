"""The wish lists as they are now. What cannot be read, or has errors, never takes back what was wished before.

- A list without errors counts as it is, and is kept on the disk as the last good version.
- Of a list with errors, what is right counts, and besides all that the last good version wished and this one does not:
  whether that was to be dropped cannot be told from what is broken.
- Of a list that cannot be read, the last good version counts.
- A file that is gone from a directory that has others was taken away. One that is gone from its own place, or a
  directory without any, may just not be mounted: the last good versions count.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import structlog

from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.threads import to_end
from services.common.together import all_of
from services.common.work_threads import begin_in_thread
from services.converter.errors import SourceUnreachableError, WishListSourceError
from services.converter.model import Wish, WishList
from services.converter.wishlist.problems import Problem, Reading, Severity
from services.converter.wishlist.reading import read_wish_list
from services.converter.wishlist.sources.download import Downloader, Validators
from services.converter.wishlist.sources.files import list_files, read_file
from services.converter.wishlist.sources.kept import Kept, KeptLists
from services.converter.wishlist.sources.places import ListUrl, Place

__all__ = ["ListState", "WishLists"]

_log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")

_TOLD: Final = 20
"""Most problems of a list that are logged one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListState:
    """One list, for whoever wants to know how it is."""

    wish_list: WishList
    """What counts."""
    problems: tuple[Problem, ...] = ()
    """What is wrong in its present version."""
    trouble: str | None = None
    """Why the present version could not be read, or kept."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What a content came to, and what it depended on."""

    fingerprint: bytes
    reading: Reading


class WishLists:
    """Reads wish lists, again and again.

    Parameters
    ----------
    places
        Where they are, in the order in which their wishes count.
    kept
        Keeps last good versions.
    downloader
        Fetches those of web servers.
    recipe_outputs
        In which further ways repositories show the images of DUCC's recipes.
    """

    def __init__(
        self,
        *,
        places: Sequence[Place],
        kept: KeptLists,
        downloader: Downloader,
        recipe_outputs: ImageOutputs = NO_OUTPUTS,
    ) -> None:
        self._places = tuple(dict.fromkeys(places))
        self._kept = kept
        self._downloader = downloader
        self._recipe_outputs = recipe_outputs
        self._read: dict[tuple[str, bool], _Read] = {}
        self._told: dict[str, tuple[str | None, tuple[Problem, ...]]] = {}

    async def read(self) -> tuple[WishList, ...]:
        """Return what counts now: never less than before but for what a list without errors no longer has."""
        return tuple(state.wish_list for state in await self.states())

    async def states(self) -> tuple[ListState, ...]:
        """Read all lists; return how each of them is."""
        found = [state for states in await all_of(map(self._place, self._places)) for state in states]
        for state in found:
            self._tell(state)
        sources = {state.wish_list.source for state in found}
        self._read = {key: read for key, read in self._read.items() if key[0] in sources}
        self._told = {source: told for source, told in self._told.items() if source in sources}
        return tuple(found)

    async def _place(self, place: Place) -> list[ListState]:
        if isinstance(place, ListUrl):
            return [await self._url(place)]
        try:
            paths = await _in_thread(partial(list_files, place.path))
        except SourceUnreachableError as error:
            return await self._unseen(str(place), str(error))
        if paths is None:
            return [await self._file(place.path, str(place))]
        states = [await self._file(path, str(place)) for path in paths]  # there may be a thousand of them
        await self._forget_others(str(place), {str(path) for path in paths})
        return states

    async def _forget_others(self, place: str, sources: set[str]) -> None:
        try:
            for kept in await _in_thread(partial(self._kept.of_place, place)):
                if kept.source not in sources:
                    await _in_thread(partial(self._kept.forget, kept.source))
                    _log.info("wish list taken away", source=kept.source)
        except WishListSourceError as error:
            _log.exception("what was kept of wish lists that are gone is left", error=str(error))

    async def _unseen(self, place: str, trouble: str) -> list[ListState]:
        """Return the last good versions of a place that cannot be looked into."""
        try:
            found = await _in_thread(partial(self._kept.of_place, place))
        except WishListSourceError as error:
            return [ListState(wish_list=WishList(source=place, complete=False), trouble=f"{trouble}; {error}")]
        if not found:
            return [ListState(wish_list=WishList(source=place, complete=False), trouble=trouble)]
        lists = [await self._last_good(kept, Path(kept.source).parent) for kept in found]
        return [ListState(wish_list=each, trouble=trouble) for each in lists]

    async def _file(self, path: Path, place: str) -> ListState:
        source = str(path)
        try:
            content = await _in_thread(partial(read_file, path))
        except SourceUnreachableError as error:
            return await self._unread(source, path.parent, str(error))
        return await self._content(Kept(source, place, content, Validators()), path.parent)

    async def _url(self, place: ListUrl) -> ListState:
        source = str(place)
        try:
            kept = await _in_thread(partial(self._kept.load, source))
        except WishListSourceError as error:
            _log.exception("the kept version of a wish list is not used", source=source, error=str(error))
            kept = None
        try:
            found = await self._downloader.fetch(place.url, Validators() if kept is None else kept.validators)
        except SourceUnreachableError as error:
            return await self._unread(source, None, str(error))
        if found is not None:
            return await self._content(Kept(source, source, found.content, found.validators), None)
        if kept is None:
            raise AssertionError  # nothing was known that could be unmodified
        return await self._content(kept, None)

    async def _unread(self, source: str, directory: Path | None, trouble: str) -> ListState:
        former, more = await self._former(source, directory)
        wish_list = WishList(source=source, complete=False) if former is None else former
        return ListState(wish_list=wish_list, trouble=trouble if more is None else f"{trouble}; {more}")

    async def _former(self, source: str, directory: Path | None) -> tuple[WishList | None, str | None]:
        """Return the last good version as it counts now, and why there is none where it should be."""
        try:
            kept = await _in_thread(partial(self._kept.load, source))
        except WishListSourceError as error:
            return None, str(error)
        return (None, None) if kept is None else (await self._last_good(kept, directory), None)

    async def _last_good(self, kept: Kept, directory: Path | None) -> WishList:
        reading = await self._reading(kept.content, kept.source, directory, present=False)
        # A key that it names may be gone.
        return replace(reading.wish_list or WishList(source=kept.source), complete=False)

    async def _content(self, present: Kept, directory: Path | None) -> ListState:
        reading = await self._reading(present.content, present.source, directory, present=True)
        if reading.wish_list is not None and not reading.errors:
            return ListState(wish_list=reading.wish_list, problems=reading.problems, trouble=await self._keep(present))
        former, trouble = await self._former(present.source, directory)
        wish_list = _joined(reading.wish_list, former) or WishList(source=present.source, complete=False)
        return ListState(wish_list=wish_list, problems=reading.problems, trouble=trouble)

    async def _keep(self, present: Kept) -> str | None:
        def keep() -> None:
            if self._kept.load(present.source) != present:
                self._kept.keep(present)

        try:
            await _in_thread(keep)
        except WishListSourceError as error:
            return str(error)
        return None

    async def _reading(self, content: bytes, source: str, directory: Path | None, *, present: bool) -> Reading:
        former = self._read.get((source, present))

        def read() -> _Read:
            files = frozenset() if former is None else former.reading.files
            if former is not None and former.fingerprint == _fingerprint(content, files):
                return former
            reading = read_wish_list(content, source, directory=directory, recipe_outputs=self._recipe_outputs)
            return _Read(_fingerprint(content, reading.files), reading)

        made = await _in_thread(read)
        self._read[source, present] = made
        return made.reading

    def _tell(self, state: ListState) -> None:
        """Log how a list is, where that has changed."""
        source = state.wish_list.source
        told = (state.trouble, state.problems)
        former = self._told.get(source)
        self._told[source] = told
        if told == former:
            return
        if state.trouble is not None:
            _log.error("wish list not read, its last good version counts", source=source, reason=state.trouble)
        for problem in state.problems[:_TOLD]:
            log = _log.error if problem.severity is Severity.ERROR else _log.warning
            log("wish list has a problem", place=str(problem.origin), problem=problem.text)
        if len(state.problems) > _TOLD:
            _log.error("wish list has more problems", source=source, more=len(state.problems) - _TOLD)
        if former is not None and told == (None, ()):
            _log.info("wish list is right again", source=source)


def _fingerprint(content: bytes, files: frozenset[Path]) -> bytes:
    found = hashlib.sha256(content)
    for path in sorted(files):
        try:
            key = read_file(path)
        except SourceUnreachableError as error:
            key = str(error).encode(errors="surrogateescape")
        found.update(hashlib.sha256(key).digest())
    return found.digest()


def _joined(present: WishList | None, former: WishList | None) -> WishList | None:
    """Return what a list with errors wishes, and what its last good version did besides."""
    if present is None or former is None:
        return present or former
    there = set(map(_identity, present.wishes))
    wishes = (*present.wishes, *(wish for wish in former.wishes if _identity(wish) not in there))
    names = {policy.name for policy in present.policies}
    policies = (*present.policies, *(policy for policy in former.policies if policy.name not in names))
    return replace(present, wishes=wishes, policies=policies, complete=False)


def _identity(wish: Wish) -> tuple[object, ...]:
    return (wish.registry, wish.repository, wish.tags, wish.repositories)


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    return await to_end(begin_in_thread(work))
