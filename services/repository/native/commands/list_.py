"""`thin-repository list`."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.common.errors import InvalidValueError
from services.common.sidecar import encode_path
from services.repository.native.commands.frame import JSON
from services.repository.native.commands.reading import READABLE, open_reader
from services.repository.native.reader.entries import Entry, show_path
from services.repository.native.reader.revision import Revision

__all__ = ["list_"]


@click.command(
    "list",
    epilog="""\
\b
Examples:
  thin-repository list thin.example.org / --directory /srv/cvmfs/thin.example.org
  thin-repository list thin.example.org /.layers --recursive --tag trunk-previous --json
""",
)
@READABLE
@click.argument("path", default="/")
@click.option("--tag", help="Of the revision that has this tag [default: the newest].")
@click.option("--recursive", is_flag=True, help="Everything below.")
@click.option("--hidden", is_flag=True, help="Also what clients find by its name only.")
@JSON
def list_(*, path: str, tag: str | None, recursive: bool, hidden: bool, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Show a directory of a revision as `ls -l` does, or one path that is none.

    In JSON, bytes of a path that are not printable ASCII, and %, are percent-encoded.
    """
    with open_reader(**place) as reader:
        head = reader.head()
        revision = reader.newest(head) if tag is None else reader.tagged(head, tag)
        entries = _find(revision, _path(path), recursive=recursive, hidden=hidden)
        if as_json:
            write_document({"entries": [_document(entry) for entry in entries]})
        else:
            write_output("".join(map(_line, entries)))


def _path(text: str) -> bytes:
    path = os.fsencode(text).rstrip(b"/")
    if not text.startswith("/") or any(part in (b"", b".", b"..") for part in path.split(b"/")[1:]):
        raise InvalidValueError(f"not an absolute path in the repository: {text[:200]!r}")
    return path


def _find(revision: Revision, path: bytes, *, recursive: bool, hidden: bool) -> Iterator[Entry]:
    found = revision.stat(path)
    if found is None:
        raise InvalidValueError(f"{show_path(path)} is not in this revision")
    if not found.is_directory:
        return iter((found,))
    if recursive:
        return (entry for entry in revision.walk(path, hidden=hidden) if entry.path != path)
    return revision.list(path, hidden=hidden)


def _time(entry: Entry) -> str:
    try:
        return datetime.fromtimestamp(entry.mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(entry.mtime)  # beyond the years that Python knows


def _line(entry: Entry) -> str:
    size = f"{os.major(entry.size)}, {os.minor(entry.size)}" if entry.is_device else str(entry.size)
    target = f" -> {show_path(entry.target)}" if entry.is_symlink else ""
    return (
        f"{stat.filemode(entry.mode)} {entry.links:>3} {entry.uid:>5} {entry.gid:>5} {size:>12} {_time(entry)} "
        f"{show_path(entry.path)}{target}\n"
    )


def _document(entry: Entry) -> dict[str, object]:
    return {
        "path": encode_path(entry.path),
        "mode": f"{entry.mode:o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "links": entry.links,
        "mtime": entry.mtime,
        "mtime_ns": entry.mtime_ns,
        "target": encode_path(entry.target) if entry.is_symlink else None,
        "device": [os.major(entry.size), os.minor(entry.size)] if entry.is_device else None,
        "hash": None if entry.hash is None else str(entry.hash),
        "xattrs": {encode_path(name): encode_path(value) for name, value in sorted(entry.xattrs.items())},
    }
