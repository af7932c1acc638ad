"""`thin-repository import`."""

from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.repository.native.adoption import adopt_repository
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site

__all__ = ["adopt"]


@click.command(
    "import", epilog="Example: thin-repository import thin.example.org --directory /srv/cvmfs/thin.example.org"
)
@REPOSITORY
@JSON
def adopt(*, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Take over a repository that cvmfs_server has made, where it is, with its keys.

    Its content, its tags and its numbers stay; publishing goes on where it was. From then on leave it to this suite:
    cvmfs_server does not know what has been published since. Before it is used there again, it needs a
    `cvmfs_server check -r NAME`.
    """
    with open_site(**place) as site:
        manifest = adopt_repository(name=site.name, storage=site.storage, keys=site.keys)
    if as_json:
        write_document({"repository": manifest.name, "revision": manifest.revision, "root": str(manifest.root)})
    else:
        write_output(f"{site.storage}: took over {manifest.name} at revision {manifest.revision}\n")
