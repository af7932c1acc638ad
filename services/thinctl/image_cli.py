"""The commands about images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click

from services.common.command_line import NumberRange, bundle, run_async, write_document
from services.common.publisher_api import ImageAnswer
from services.publisher.journal.image_model import ImageState
from services.thinctl import image_commands, image_tables, tables
from services.thinctl.options import (
    CHANGING,
    READING,
    changer,
    demand_names_or_failed,
    reader,
    show_restarted,
    timeout_option,
)

__all__ = ["images"]

_EPILOG: Final = """\
\b
Examples:
  thinctl images list --state failed
  thinctl images show quay.io/ns/tool:v1
  thinctl images publish quay.io/ns/tool:v1 --wait
  thinctl images remove quay.io/ns/tool:v1
  thinctl images restore quay.io/ns/tool:v1
  thinctl images collect --dry-run

NAME is what an image is called in the repository: REGISTRY/REPOSITORY:TAG, or REGISTRY/REPOSITORY@sha256:DIGEST.
"""


def _waiting(until: str) -> Callable[[Any], Any]:
    return bundle(click.option("--wait", is_flag=True, help=f"Wait until {until}."), timeout_option(3600))


@click.group(epilog=_EPILOG)
def images() -> None:
    """Watch and steer images, which are published as a whole."""


@images.command("list", epilog="Example: thinctl images list --state failed --prefix quay.io/ns/ --all")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in ImageState]),
    help="Images in this state; may be given several times.",
)
@click.option("--refused", is_flag=True, help="Failed images that are at fault themselves.")
@click.option("--prefix", metavar="TEXT", help="Images whose name begins so.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most images to show.")
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@READING
def list_images(
    *,
    states: tuple[str, ...],
    refused: bool,
    prefix: str | None,
    limit: int,
    everything: bool,
    publisher: str | None,
    as_json: bool,
) -> None:
    """List images in the order of their names."""
    query = [("state", state) for state in states] + ([("prefix", prefix)] if prefix else [])
    query += [("refused", "true")] if refused else []
    found, more = run_async(image_commands.images(reader(publisher), query, limit=None if everything else limit))
    if as_json:
        write_document({"images": _documents(found), "more": more})
        return
    image_tables.show_images(found)
    if more:
        tables.say(f"there are more than these {len(found)}: --all shows them")


@images.command(epilog="Example: thinctl images show quay.io/ns/tool:v1")
@click.argument("name")
@READING
def show(*, name: str, publisher: str | None, as_json: bool) -> None:
    """Show all that is known of an image: why it failed, how long it took, its layers, what its name has named."""
    image, versions = run_async(image_commands.image(reader(publisher), name))
    if as_json:
        former = [version.model_dump(mode="json") for version in versions]
        write_document({**image.model_dump(mode="json"), "versions": former})
    else:
        image_tables.show_image(image, versions)


@images.command(epilog="Example: thinctl images publish quay.io/ns/tool:v1 --platform linux/arm64 --wait")
@click.argument("name")
@click.option("--reference", metavar="TEXT", help="Where it is pulled from, if not from where its name says.")
@click.option("--digest", metavar="sha256:HEX", help="Publish exactly this, whatever the tag says.")
@click.option(
    "--platform", "platforms", metavar="OS/ARCH", multiple=True, help="May be given several times; the first is main."
)
@click.option(
    "--output",
    "outputs",
    metavar="NAME[:DETAIL]",
    multiple=True,
    help="Show it in a further way: flat, flat:others-read, podman, podman:STORE; may be given again. Ways that "
    "are not given are taken away.",
)
@click.option("--priority", type=click.IntRange(-1000, 1000), default=0, show_default=True, help="Higher comes first.")
@_waiting("it is published, and tell how far it is")
@CHANGING
def publish(
    *,
    name: str,
    reference: str | None,
    digest: str | None,
    platforms: tuple[str, ...],
    outputs: tuple[str, ...],
    priority: int,
    wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Have an image published now, or replaced by what its tag says now."""
    request = image_commands.request_for(
        name, reference=reference, digest=digest, platforms=platforms, outputs=outputs, priority=priority
    )
    access = changer(publisher, token_file)
    _show([run_async(image_commands.publish(access, request, timeout=timeout if wait else None))], as_json=as_json)


@images.command(epilog="Examples: thinctl images retry quay.io/ns/tool:v1 --wait    thinctl images retry --failed")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--failed", is_flag=True, help="Every failed image, refused ones as well.")
@_waiting("the named images are published")
@CHANGING
def retry(
    *,
    names: tuple[str, ...],
    failed: bool,
    wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Try images again now; published ones are published again if they are not in the repository any more."""
    demand_names_or_failed(names, failed=failed, wait=wait, things="images")
    access = changer(publisher, token_file)
    if not failed:
        _show(run_async(image_commands.retry(access, names, timeout=timeout if wait else None)), as_json=as_json)
        return
    show_restarted(run_async(image_commands.retry_failed(access)), "images", as_json=as_json)


@images.command(epilog="Example: thinctl images remove quay.io/ns/tool:v1 --keep 86400 --wait")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--keep",
    type=NumberRange(min=0, max=1e10),
    metavar="SECONDS",
    help="How long they can be restored at least  [default: the publisher's PUBLISHER_KEEP_REPLACED]",
)
@_waiting("they are removed")
@CHANGING
def remove(
    *,
    names: tuple[str, ...],
    keep: float | None,
    wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Remove images; their layers go later, in a collection, and until then they can be restored."""
    access = changer(publisher, token_file)
    work = image_commands.remove(access, names, keep=keep, timeout=timeout if wait else None)
    _show(run_async(work), as_json=as_json)


@images.command(epilog="Example: thinctl images restore quay.io/ns/tool:v1 --wait")
@click.argument("name")
@click.option("--digest", metavar="sha256:HEX", help="The version  [default: the last one that is not there any more]")
@_waiting("it is published")
@CHANGING
def restore(
    *,
    name: str,
    digest: str | None,
    wait: bool,
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Publish a version again that was replaced or removed; `thinctl images show` lists them."""
    access = changer(publisher, token_file)
    work = image_commands.restore(access, name, digest, timeout=timeout if wait else None)
    _show([run_async(work)], as_json=as_json)


@images.command(epilog="Example: thinctl images collect --dry-run")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option(
    "--commit",
    "commits",
    metavar="DIGEST",
    multiple=True,
    help="A layer that came by a commit and may go as well, if its archive is not in the bucket any more and no thin "
    "image anywhere names it; may be given several times.",
)
@timeout_option(7200)
@CHANGING
def collect(
    *,
    dry_run: bool,
    commits: tuple[str, ...],
    timeout: float,
    publisher: str | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Take out layers that no image has named for long; the publisher does it by itself from time to time."""
    access = changer(publisher, token_file)
    found = run_async(image_commands.collect(access, commits, dry_run=dry_run, timeout=timeout))
    if as_json:
        write_document(found.model_dump(mode="json"))
    else:
        image_tables.show_collection(found)


def _show(found: Sequence[ImageAnswer], *, as_json: bool) -> None:
    if as_json:
        write_document({"images": _documents(found)})
    else:
        image_tables.show_images(found)


def _documents(found: Sequence[ImageAnswer]) -> list[dict[str, Any]]:
    return [image.model_dump(mode="json") for image in found]
