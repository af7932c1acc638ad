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
@click.argument("digests", nargs=-1, metavar="[DIGEST...]")
@click.option("--flat", "configs", multiple=True, metavar="CONFIG", help="A flat image: what its directory is called.")
@JSON
def remove(*, digests: tuple[str, ...], configs: tuple[str, ...], as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Take layers and flat images out of the repository, in a new revision; `gc` then frees what only they hold.

    Remove the layers' archives from the bucket of layers as well, or the publisher will publish them again when it
    sweeps. Images that name them stop working.

    Each flat image is named by an option of its own. Publish its images again to have it made anew; until then their
    names lead nowhere.
    """
    if not digests and not configs:
        raise click.UsageError("name a layer, or a flat image by --flat")
    layers = [Digest(digest) for digest in dict.fromkeys(digests)]
    flats = [Digest(config) for config in dict.fromkeys(configs)]
    with open_site(**place) as site, ExitStack() as stack:
        manifest = remove_layers(site.access(), layers, flats=flats, state=_state(site, stack))
    if as_json:
        write_document({"removed": layers, "flats": flats, "revision": manifest.revision})
    else:
        counts = ((len(layers), "layers"), (len(flats), "flat images"))
        what = " and ".join(f"{count} {kind}" for count, kind in counts if count)
        write_output(f"removed {what} in revision {manifest.revision}\n")


def _state(site: Site, stack: ExitStack) -> LocalState | None:
    if site.state is None:
        return None
    return stack.enter_context(closing(LocalState(site.state / "state.sqlite")))
