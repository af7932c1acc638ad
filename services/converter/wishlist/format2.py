"""Wish lists of version 2: their problems, with places, and the wishes that they come to.

An entry with an error is left out and the others are taken. An error anywhere else makes the whole list unusable: were
a signature policy left out, what it forbids would be published.
"""

from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence as AnySequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from services.common.errors import InvalidValueError
from services.converter.model import Origin, SignaturePolicy, Wish, WishList
from services.converter.wishlist.entries import WrongEntryError, wishes_of
from services.converter.wishlist.grammar import (
    Defaults,
    FlatEntry,
    ImageEntry,
    OutputsEntry,
    PodmanEntry,
    PolicyEntry,
    RetentionEntry,
    ThinEntry,
    WishListDocument,
)
from services.converter.wishlist.keys import KeyFiles
from services.converter.wishlist.problems import Problem, Reading, Severity, nearest
from services.converter.wishlist.tree import Mapping, Node, Sequence

__all__ = ["read_version_2"]

_MODELS: Final[AnyMapping[str, type[BaseModel]]] = {
    "defaults": Defaults,
    "policies": PolicyEntry,
    "images": ImageEntry,
    "thin": ThinEntry,
    "retention": RetentionEntry,
    "outputs": OutputsEntry,
    "flat": FlatEntry,
    "podman": PodmanEntry,
}
"""What the keys of the document hold."""
_MESSAGES: Final = {
    "tuple_type": "write a list: '- ' before each of its values, or [...] around them",
    "model_type": "write a mapping: keys and values, indented",
    "string_type": "write a text",
}
"""Errors that pydantic tells in Python's words."""


def read_version_2(document: Mapping, source: str, *, directory: Path | None) -> Reading:
    """Read a list; every error in it is told.

    Parameters
    ----------
    document
        The whole.
    source
        File or URL, for places.
    directory
        Where paths of keys start; None where no file may be named.
    """
    return _Reader(document, source, KeyFiles(directory)).read()


class _Reader:
    def __init__(self, document: Mapping, source: str, key_files: KeyFiles) -> None:
        self._document = document
        self._source = source
        self._key_files = key_files
        self._problems: list[Problem] = []

    def read(self) -> Reading:
        data = self._document.data
        parsed, places = self._parse(data)
        policies = None if parsed is None else self._policies(parsed.policies)
        wishes: list[Wish] = []
        if parsed is not None and policies is not None:
            for place, entry in zip(places, parsed.images, strict=True):
                wishes += self._wishes(place, entry, parsed.defaults, policies)
        problems = tuple(sorted(self._problems, key=lambda problem: problem.origin))
        files = frozenset(self._key_files.read)
        if policies is None:
            return Reading(None, problems, files)
        complete = not any(problem.severity is Severity.ERROR for problem in problems)
        known = tuple(policies.values())
        wish_list = WishList(source=self._source, wishes=tuple(wishes), policies=known, complete=complete)
        return Reading(wish_list, problems, files)

    def _error(self, origin: Origin, text: str) -> None:
        self._problems.append(Problem(origin, Severity.ERROR, text))

    def _parse(self, data: dict[str, Any]) -> tuple[WishListDocument | None, list[int]]:
        """Return the document without the entries that have errors, and which entries it has."""
        try:
            parsed = WishListDocument.model_validate(data)
        except ValidationError as error:
            broken = set()
            for detail in error.errors(include_url=False, include_input=False):
                location = detail["loc"]
                self._problems.append(self._explained(location, detail))
                is_entry = len(location) > 1 and location[0] == "images" and isinstance(location[1], int)
                broken.add(location[1] if is_entry else None)
            if None in broken:
                return None, []
            places = [place for place in range(len(data["images"])) if place not in broken]
            sound = [data["images"][place] for place in places]
            return WishListDocument.model_validate({**data, "images": sound}), places
        return parsed, list(range(len(parsed.images)))

    def _explained(self, location: AnySequence[str | int], detail: AnyMapping[str, Any]) -> Problem:
        key_at, value_at = self._places(location)
        name = str(location[-1]) if location else ""
        match detail["type"]:
            case "missing":
                return Problem(value_at, Severity.ERROR, f"the key {name!r} is missing")
            case "extra_forbidden":
                names = [part for part in location[:-1] if part in _MODELS]
                model = _MODELS[str(names[-1])] if names else WishListDocument
                text = f"unknown key {name[:80]!r}: {nearest(name, model.model_fields)}"
                return Problem(key_at, Severity.ERROR, text)
            case "value_error":
                return Problem(value_at, Severity.ERROR, str(detail["ctx"]["error"]))
            case _:
                where = "" if isinstance(location[-1], int) else f"{name}: "
                text = _MESSAGES.get(detail["type"], detail["msg"])
                return Problem(value_at, Severity.ERROR, f"{where}{text}")

    def _places(self, location: AnySequence[str | int]) -> tuple[Origin, Origin]:
        """Return where the last key of a location is, and where its value is; as near as what is there allows."""
        node: Node = self._document
        key_at = node.origin
        for part in location:
            if isinstance(node, Mapping) and part in node.entries:
                key_at, node = node.entries[str(part)]
            elif isinstance(node, Sequence) and isinstance(part, int):
                node = node.items[part]
                key_at = node.origin
            # Where a text stands for a list or a mapping, the location goes on and the document does not.
        return key_at, node.origin

    def _policies(self, entries: tuple[PolicyEntry, ...]) -> dict[str, SignaturePolicy] | None:
        found: dict[str, SignaturePolicy] = {}
        whole = True
        for place, entry in enumerate(entries):
            _, origin = self._places(("policies", place))
            if entry.name in found:
                first = found[entry.name].origin.line
                self._error(origin, f"the policy {entry.name!r} a second time (first in line {first}): rename one")
                whole = False
                continue
            keys = []
            for number, text in enumerate(entry.keys):
                try:
                    keys.append(self._key_files.load(text))
                except InvalidValueError as error:
                    self._error(self._places(("policies", place, "keys", number))[1], str(error))
                    whole = False
            found[entry.name] = SignaturePolicy(
                name=entry.name,
                patterns=entry.images,
                exceptions=entry.exclude,
                keys=tuple(keys),
                identities=entry.identities,
                origin=origin,
            )
        return found if whole else None

    def _wishes(
        self, place: int, entry: ImageEntry, defaults: Defaults, policies: AnyMapping[str, SignaturePolicy]
    ) -> list[Wish]:
        origin = self._places(("images", place))[1]
        try:
            return wishes_of(entry, defaults, policies, origin)
        except WrongEntryError as error:
            self._error(self._places(("images", place, error.key))[1], str(error))
        except InvalidValueError as error:
            self._error(self._places(("images", place, "image"))[1], str(error))
        return []
