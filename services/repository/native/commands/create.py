"""`thin-repository create`."""

import json
from pathlib import Path
from typing import Any, Final

import click

from services.common.command_line import write_document, write_output
from services.common.errors import InvalidValueError
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import MANIFEST

__all__ = ["create"]

_META_LIMIT: Final = 1 << 20
"""Largest description that is read, in bytes."""


@click.command(
    epilog="""\
\b
Examples:
  thin-repository create thin.example.org --directory /srv/cvmfs/thin.example.org
  thin-repository create thin.example.org --directory /srv/cvmfs/thin.example.org --compressor zlib \\
      --keys keys/ --whitelist signed-elsewhere
  thin-repository create thin.example.org --state /var/lib/cvmfs-thin-publisher/native/thin.example.org --if-absent
"""
)
@REPOSITORY
@click.option(
    "--compressor",
    type=click.Choice(["igzip", "zlib"]),
    default="igzip",
    show_default=True,
    help="How objects are compressed, for ever: igzip is several times as fast; zlib names content as cvmfs_server "
    "does, for repositories that are shared with it.",
)
@click.option(
    "--hash",
    "hash_",
    type=click.Choice(["sha1", "shake128"]),
    default="sha1",
    show_default=True,
    help="How objects are named, for ever.",
)
@click.option(
    "--meta",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JSON object that tells clients about the repository: administrator, email, description and so on.",
)
@click.option(
    "--whitelist",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A whitelist that was signed where the master key is, if it is not here.",
)
@click.option("--no-replicas", is_flag=True, help="Do not let stratum 1 servers copy the repository.")
@click.option("--if-absent", is_flag=True, help="Where there is a repository already, leave it as it is: that is done.")
@JSON
def create(
    *,
    compressor: str,
    hash_: str,
    meta: Path | None,
    whitelist: Path | None,
    no_replicas: bool,
    if_absent: bool,
    as_json: bool,
    **place: Any,  # noqa: ANN401
) -> None:
    """Make an empty repository, and those of its keys that are missing.

    Keep a copy of NAME.masterkey in a safe place, and give NAME.pub to clients.
    """
    with open_site(**place) as site:
        # Without the lock, for which a publisher that works would be waited for.
        there = if_absent and site.storage.size(MANIFEST) is not None
        manifest = (
            site.access().head.read()
            if there
            else create_repository(
                name=site.name,
                storage=site.storage,
                keys=site.keys,
                chosen=RepositoryFormat.of({"compressor": compressor, "hash": hash_}),
                meta=_read_meta(meta),
                whitelist=None if whitelist is None else whitelist.read_bytes(),
                replicable=not no_replicas,
            )
        )
    if as_json:
        write_document(
            {
                "repository": manifest.name,
                "revision": manifest.revision,
                "root": str(manifest.root),
                "public_key": str(site.keys.public),
            }
        )
    else:
        done = "has" if there else "created"
        write_output(f"{site.storage}: {done} {manifest.name}; clients need {site.keys.public}\n")


def _read_meta(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    with path.open("rb") as file:
        content = file.read(_META_LIMIT + 1)
    try:
        if len(content) <= _META_LIMIT and isinstance(document := json.loads(content), dict):
            return document
    except ValueError:
        pass
    raise InvalidValueError(f"{path} holds no JSON object of at most {_META_LIMIT} bytes")
