"""`thin-repository tag`."""

from datetime import UTC, datetime
from typing import Any

import click

from services.common.command_line import write_document, write_output
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site
from services.repository.native.tags import Tags
from services.repository.native.writer.history import Tag, TagName

__all__ = ["tag"]


@click.group()
def tag() -> None:
    """Name revisions: what has a name is never collected, and clients can be pinned to it."""


@tag.command("list", epilog="Example: thin-repository tag list thin.example.org")
@REPOSITORY
@JSON
def list_tags(*, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Show the tags, the newest revision first."""
    with open_site(**place) as site:
        tags = Tags(site.access()).list()
    if as_json:
        write_document({"tags": [_document(tag) for tag in tags]})
    else:
        write_output("".join(f"{tag.name:<24} {tag.revision:>8}  {_time(tag)}  {tag.description}\n" for tag in tags))


@tag.command(epilog="Example: thin-repository tag add thin.example.org release-1 --revision 42")
@REPOSITORY
@click.argument("tag_name")
@click.option("--revision", type=click.IntRange(min=1), help="Which revision [default: the newest].")
@click.option("--description", default="", help="What people should know of it.")
@JSON
def add(*, tag_name: str, revision: int | None, description: str, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Give a revision a name."""
    with open_site(**place) as site:
        made = Tags(site.access()).add(TagName(tag_name), description=description, revision=revision)
    if as_json:
        write_document(_document(made))
    else:
        write_output(f"{made.name} is revision {made.revision}\n")


@tag.command(epilog="Example: thin-repository tag remove thin.example.org release-1 release-2")
@REPOSITORY
@click.argument("tag_names", nargs=-1, required=True)
@JSON
def remove(*, tag_names: tuple[str, ...], as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Take names away; the next garbage collection may then remove what they named."""
    with open_site(**place) as site:
        Tags(site.access()).remove([TagName(name) for name in tag_names])
    if as_json:
        write_document({"removed": list(tag_names)})
    else:
        write_output(f"removed {', '.join(tag_names)}\n")


def _document(tag: Tag) -> dict[str, object]:
    return {
        "name": tag.name,
        "revision": tag.revision,
        "root": str(tag.root),
        "published": _time(tag),
        "description": tag.description,
    }


def _time(tag: Tag) -> str:
    return datetime.fromtimestamp(tag.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
