"""`thin-repository republish`."""

from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.common.digest import Digest
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site
from services.repository.native.republication import republish_layers

__all__ = ["republish"]


@click.command(
    epilog="Example: thin-repository republish thin.example.org 1be7f2b8... --state /var/lib/.../thin.example.org"
)
@REPOSITORY
@click.argument("digests", nargs=-1, required=True, metavar="DIGEST...")
@JSON
def republish(*, digests: tuple[str, ...], as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Have layers that are damaged published anew, with every object of them; they stay where they are until then.

    The publisher takes them for missing from now on. `thinctl retry DIGEST` has one published at once whose archive is
    in the bucket of layers, and `thinctl images retry IMAGE` those that came with an image from a registry.

    An object that several layers share is mended for all of them by any one.
    """
    layers = [Digest(digest) for digest in dict.fromkeys(digests)]
    with open_site(**place) as site:
        republish_layers(site.access(), layers)
    if as_json:
        write_document({"republished": layers})
    else:
        write_output("".join(f"to be published anew: {digest}\n" for digest in layers))
        write_output(
            f"now: thinctl retry {' '.join(layers)}\n"
            "or, for layers of an image from a registry: thinctl images retry IMAGE\n"
        )
