"""Wish lists as they are now, for commands that look at them once: nothing is kept, and no former version counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from services.common.image_outputs import NO_OUTPUTS, ImageOutputs
from services.common.threads import to_end
from services.common.together import all_of
from services.common.work_threads import begin_in_thread
from services.converter.errors import SourceUnreachableError
from services.converter.model import WishList
from services.converter.wishlist.problems import Problem
from services.converter.wishlist.reading import read_wish_list
from services.converter.wishlist.sources.download import Downloader, Validators
from services.converter.wishlist.sources.files import list_files, read_file
from services.converter.wishlist.sources.places import ListUrl, Place

__all__ = ["Loaded", "read_once"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What became of one list."""

    source: str
    """File or URL."""
    wish_list: WishList | None = None
    """None where nothing of it can be used."""
    problems: tuple[Problem, ...] = ()
    trouble: str | None = None
    """Why it could not be read."""


async def read_once(
    places: Sequence[Place], downloader: Downloader, *, recipe_outputs: ImageOutputs = NO_OUTPUTS
) -> list[Loaded]:
    """Read all lists, in the order of their places.

    Parameters
    ----------
    places
        Where they are.
    downloader
        Fetches those of web servers.
    recipe_outputs
        In which further ways repositories show the images of DUCC's recipes.
    """
    found = await all_of(_place(place, downloader, recipe_outputs) for place in places)
    return [loaded for of_place in found for loaded in of_place]


async def _place(place: Place, downloader: Downloader, outputs: ImageOutputs) -> list[Loaded]:
    source = str(place)
    try:
        if isinstance(place, ListUrl):
            found = await downloader.fetch(place.url, Validators())
            if found is None:
                raise AssertionError  # nothing was known that could be unmodified
            return [await _loaded(found.content, source, None, outputs)]
        paths = await to_end(begin_in_thread(partial(list_files, place.path)))
    except SourceUnreachableError as error:
        return [Loaded(source=source, trouble=str(error))]
    return [await _file(path, outputs) for path in ((place.path,) if paths is None else paths)]


async def _file(path: Path, outputs: ImageOutputs) -> Loaded:
    try:
        content = await to_end(begin_in_thread(partial(read_file, path)))
    except SourceUnreachableError as error:
        return Loaded(source=str(path), trouble=str(error))
    return await _loaded(content, str(path), path.parent, outputs)


async def _loaded(content: bytes, source: str, directory: Path | None, outputs: ImageOutputs) -> Loaded:
    read = partial(read_wish_list, content, source, directory=directory, recipe_outputs=outputs)
    reading = await to_end(begin_in_thread(read))
    return Loaded(source=source, wish_list=reading.wish_list, problems=reading.problems)
