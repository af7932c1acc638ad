"""`thin-repository remove`."""

from contextlib import ExitStack, closing
from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.common.digest import Digest
from services.repository.native.commands.frame import JSON, REPOSITORY, Site, open_site
from services.repository.native.removal import remove_layers
from services.repository.native.writer.state import LocalState

__all__ = ["remove"]


@click.command(
    epilog="Example: thin-repository remove thin.example.org 1be7f2b8... --state /var/lib/.../thin.example.org"
)
@REPOSITORY
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...")
@JSON
def remove(*, digests: tuple[str, ...], as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Take layers out of the repository, in a new revision; `gc` then frees what only they hold.

    Remove their archives from the bucket of layers as well, or the publisher will publish them again when it sweeps.
    Images that name them stop working.
    """
    wanted = [Digest(digest) for digest in digests]
    with open_site(**place) as site, ExitStack() as stack:
        manifest = remove_layers(site.access(), wanted, state=_state(site, stack))
    if as_json:
        write_document({"removed": wanted, "revision": manifest.revision})
    else:
        write_output(f"removed {len(wanted)} layers in revision {manifest.revision}\n")


def _state(site: Site, stack: ExitStack) -> LocalState | None:
    if site.state is None:
        return None
    return stack.enter_context(closing(LocalState(site.state / "state.sqlite")))
