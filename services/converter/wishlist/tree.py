"""YAML with places: a document as a tree whose nodes know where they are written, and whose size has bounds.

Scalars stay the text that is written, so that a tag `1.10` is no number and `no` no truth value. Anchors, aliases and
merge keys (`<<`) work as in YAML 1.1. The parser is libyaml's (PyYAML), which hands over events, so that no nesting of
the content becomes one of calls.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from services.common.errors import InvalidValueError
from services.converter.model import Origin

__all__ = ["SIZE_LIMIT", "Mapping", "Node", "Scalar", "Sequence", "TreeError", "parse_tree"]

SIZE_LIMIT: Final = 16 << 20
"""Largest document, in bytes."""
_NODE_LIMIT: Final = 2_000_000
"""Most nodes, those of aliases counted as often as they are used."""
_SCALAR_LIMIT: Final = 16 << 10
"""Longest scalar, in characters."""
_DEPTH_LIMIT: Final = 20
_CORE_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset({"!", *(_CORE_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map"))})
_MERGE: Final = "<<"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_LOADER: Final[Any] = yaml.CSafeLoader


class TreeError(InvalidValueError):
    """A document is no YAML, or larger than its limits.

    Parameters
    ----------
    origin
        Where.
    text
        What is wrong, and the remedy.
    """

    def __init__(self, origin: Origin, text: str) -> None:
        super().__init__(f"{origin}: {text}")
        self.origin = origin
        self.text = text


@dataclass(slots=True)
class Scalar:
    """A text; None where nothing, or `null`, is written."""

    origin: Origin
    value: str | None
    size: int = 1
    """Nodes it consists of."""

    @property
    def data(self) -> str | None:
        """What it holds."""
        return self.value


@dataclass(slots=True)
class Sequence:
    """A list."""

    origin: Origin
    items: list["Node"] = field(default_factory=list)
    size: int = 1

    @property
    def data(self) -> list[Any]:
        """What it holds, without places."""
        return [item.data for item in self.items]


@dataclass(slots=True)
class Mapping:
    """A mapping; its keys are scalars."""

    origin: Origin
    entries: dict[str, tuple[Origin, "Node"]] = field(default_factory=dict)
    """By key: where the key is written, and the value."""
    size: int = 1

    @property
    def data(self) -> dict[str, Any]:
        """What it holds, without places."""
        return {key: value.data for key, (_, value) in self.entries.items()}


Node = Scalar | Sequence | Mapping


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    merged: list[Node] = field(default_factory=list)


def parse_tree(content: bytes, source: str) -> Node:
    """Read a document.

    Parameters
    ----------
    content
        UTF-8.
    source
        File or URL, for places.

    Raises
    ------
    TreeError
        It is not one YAML document of bounded size, has a key twice, or asks for objects.
    """
    return _Builder(source).build(_text(content, source))


def _text(content: bytes, source: str) -> str:
    start = Origin(source, 1, 1)
    if len(content) > SIZE_LIMIT:
        raise TreeError(
            start, f"a wish list has at most {SIZE_LIMIT >> 20} MiB, this has {len(content)} bytes: split it"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        what = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte 0x{content[error.start]:02x}"
        raise TreeError(Origin(source, line, column), f"not UTF-8 ({what}): save the file as UTF-8") from None


class _Builder:
    def __init__(self, source: str) -> None:
        self._source = source
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._size = 0
        self._root: Node | None = None

    def build(self, text: str) -> Node:
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event)
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            raise TreeError(
                Origin(self._source, before.count("\n") + 1, len(before) - before.rfind("\n")),
                f"a character that no text has (U+{int(error.character):04X}): remove it",
            ) from None
        except yaml.MarkedYAMLError as error:
            raise self._syntax_error(error, text) from None
        if self._root is None:
            raise TreeError(Origin(self._source, 1, 1), "the file is empty: a wish list has at least 'version:'")
        return self._root

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> TreeError:
        mark = error.problem_mark or error.context_mark
        origin = Origin(self._source, 1, 1) if mark is None else Origin(self._source, mark.line + 1, mark.column + 1)
        lines = text.splitlines()
        line = lines[origin.line - 1] if origin.line <= len(lines) else ""
        problem = ", ".join(filter(None, (error.context, error.problem)))
        if "\t" in line[: len(line) - len(line.lstrip())]:
            return TreeError(origin, f"not YAML ({problem}): tabs cannot indent, use spaces")
        return TreeError(origin, f"not YAML: {problem}")

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                origin = self._origin(event)
                if len(event.value) > _SCALAR_LIMIT:
                    raise TreeError(
                        origin, f"a text of {len(event.value)} characters: at most {_SCALAR_LIMIT} are allowed"
                    )
                self._check_tag(event)
                null = event.implicit[0] and not event.style and event.value in _NULLS
                self._begun(event.anchor, node := Scalar(origin, None if null else event.value))
                self._add(node)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._start(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent() if self._root is not None:
                raise TreeError(self._origin(event), "a second document: one file has one wish list, remove the '---'")
            case _:
                pass

    def _origin(self, event: yaml.Event) -> Origin:
        mark = event.start_mark
        return Origin(self._source, 1, 1) if mark is None else Origin(self._source, mark.line + 1, mark.column + 1)

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag is not None and event.tag not in _TAGS:
            raise TreeError(self._origin(event), f"a YAML tag ({event.tag[:80]!r}): wish lists have none, remove it")

    def _start(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        origin = self._origin(event)
        self._check_tag(event)
        if len(self._open) >= _DEPTH_LIMIT:
            raise TreeError(origin, f"more than {_DEPTH_LIMIT} levels: no wish list is that deep")
        node = Sequence(origin) if isinstance(event, yaml.SequenceStartEvent) else Mapping(origin)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        ended = self._open.pop()
        if isinstance(ended.node, Mapping):
            for merged in ended.merged:
                _merge(ended.node, merged)
            ended.node.size = 1 + sum(1 + value.size for _, value in ended.node.entries.values())
        else:
            ended.node.size = 1 + sum(item.size for item in ended.node.items)
        self._begun(ended.anchor, ended.node)
        self._add(ended.node)

    def _begun(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _alias(self, event: yaml.AliasEvent) -> None:
        origin = self._origin(event)
        node = self._anchors.get(str(event.anchor))
        if node is None:
            what = "contains itself" if event.anchor in self._anchors else "is defined nowhere before"
            raise TreeError(origin, f"the alias *{event.anchor} {what}")
        self._size += node.size
        self._add(node, origin)

    def _add(self, node: Node, origin: Origin | None = None) -> None:
        self._size += 1
        if self._size > _NODE_LIMIT or node.size > _NODE_LIMIT:
            raise TreeError(origin or node.origin, f"more than {_NODE_LIMIT} values, aliases counted: split the list")
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self._as_key(parent.node, node, origin or node.origin)
        else:
            key, parent.key = parent.key, None
            if key.value == _MERGE:
                parent.merged += node.items if isinstance(node, Sequence) else [node]
            else:
                parent.node.entries[str(key.value)] = (key.origin, node)

    def _as_key(self, mapping: Mapping, node: Node, origin: Origin) -> Scalar:
        if not isinstance(node, Scalar) or node.value is None:
            raise TreeError(origin, "a key that is no text: quote it, or indent what it is to hold")
        if node.value in mapping.entries:
            first = mapping.entries[node.value][0]
            raise TreeError(
                origin, f"the key {node.value[:80]!r} a second time (first in line {first.line}): merge the two"
            )
        return Scalar(origin, node.value)


def _merge(mapping: Mapping, merged: Node) -> None:
    if not isinstance(merged, Mapping):
        raise TreeError(merged.origin, "'<<' merges mappings only")
    for key, entry in merged.entries.items():
        mapping.entries.setdefault(key, entry)
