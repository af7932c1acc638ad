"""containerd's filters for lists: `kind==active`, `labels."containerd.io/snapshot.ref"==NAME,parent==""`.

The parts of a filter, with commas between them, hold all together; of several filters one is enough.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

from services.snapshotter.errors import BadRequestError
from services.snapshotter.store.model import Snapshot

__all__ = ["parse_filters"]

Test = Callable[[Snapshot], bool]

_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"'
_PART: Final = re.compile(
    rf"(?P<field>(?:[A-Za-z_]\w*|{_QUOTED})(?:\.(?:[\w/-]+|{_QUOTED}))*)"
    rf"(?:\s*(?P<operator>==|!=|~=)\s*(?P<value>{_QUOTED}|[^\s,\"]*))?\s*(?P<end>,\s*|$)"
)
_NAME: Final = re.compile(rf"{_QUOTED}|[^.\"]+")


def parse_filters(filters: Sequence[str]) -> Test:
    """Return what tells whether a snapshot fits one of the filters; without any, all do.

    Raises
    ------
    BadRequestError
        A filter is not of the form.
    """
    tests = [_parse(text) for text in filters]
    return lambda snapshot: not tests or any(test(snapshot) for test in tests)


def _parse(text: str) -> Test:
    parts: list[Test] = []
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if match is None:
            raise BadRequestError(f"filter {text!r} cannot be read from {text[position:]!r} on")
        parts.append(_part(text, match))
        position = match.end()
    return lambda snapshot: all(part(snapshot) for part in parts)


def _part(text: str, match: re.Match[str]) -> Test:
    path = [_plain(name) for name in _NAME.findall(match["field"])]
    value = _plain(match["value"] or "")
    match match["operator"]:
        case None:
            return lambda snapshot: _field(snapshot, path) is not None
        case "==":
            return lambda snapshot: _field(snapshot, path) == value
        case "!=":
            return lambda snapshot: (_field(snapshot, path) or "") != value
        case _:
            try:
                pattern = re.compile(value)
            except re.error as error:
                raise BadRequestError(f"filter {text!r}: {error}") from None
            return lambda snapshot: (found := _field(snapshot, path)) is not None and bool(pattern.search(found))


def _plain(name: str) -> str:
    if not name.startswith('"'):
        return name
    try:
        return str(json.loads(name))
    except ValueError as error:
        raise BadRequestError(f"{name} in a filter cannot be read: {error}") from None


def _field(snapshot: Snapshot, path: Sequence[str]) -> str | None:
    """Return a field's value; None if there is none of that name."""
    match path:
        case ["kind"]:
            return snapshot.kind.name.lower()
        case ["name"]:
            return snapshot.name
        case ["parent"]:
            return snapshot.parent
        case ["labels", *rest]:
            # A label's name has dots in it, which a client may leave without quotes.
            return snapshot.labels.get(".".join(rest))
        case _:
            return None
