"""`thin-repository info`."""

import json
from datetime import UTC, datetime
from typing import Any, Final

import click

from services.common.command_line import write_document, write_output
from services.repository.native.commands.frame import JSON
from services.repository.native.commands.reading import READABLE, open_reader

__all__ = ["info"]

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@click.command(
    epilog="""\
\b
Examples:
  thin-repository info thin.example.org --directory /srv/cvmfs/thin.example.org
  thin-repository info thin.example.org --url http://stratum0.example.org/cvmfs/thin.example.org --json
"""
)
@READABLE
@JSON
def info(*, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Show what a repository holds and until when clients trust it, after its signatures have been verified."""
    with open_reader(**place) as reader:
        head = reader.head()
        manifest = head.manifest
        totals = reader.newest(head).totals()
        document = {
            "repository": manifest.name,
            "revision": manifest.revision,
            "published": None if manifest.published is None else _time(manifest.published),
            "root": str(manifest.root),
            "ttl": manifest.ttl,
            "whitelist_expires": head.whitelist.expires.strftime(_TIME),
            "certificate": head.certificate.fingerprint(manifest.root.algorithm),
            "garbage_collectable": manifest.collectable,
            "tags": len(reader.tags(head)),
            "catalogs": totals["nested"] + 1,
            "files": totals["regular"],
            "directories": totals["dir"] - totals["nested"],
            "symbolic_links": totals["symlink"],
            "special_files": totals["special"],
            "size": totals["file_size"],
            "meta": _meta(reader.meta(head)),
        }
    if as_json:
        write_document(document)
    else:
        write_output("".join(f"{key.replace('_', ' '):<20} {_show(value)}\n" for key, value in document.items()))


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def _meta(content: bytes) -> object:
    """Take the meta information for JSON if it is; clients do not ask for that."""
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="backslashreplace")


def _show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
