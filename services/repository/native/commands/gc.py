"""`thin-repository gc`."""

from typing import Any

import click

from services.common.command_line import NumberRange, write_document, write_output
from services.repository.native.collection.collector import Collection, Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.commands.frame import JSON, REPOSITORY, open_site

__all__ = ["gc"]


@click.command(
    epilog="""\
\b
Examples:
  thin-repository gc thin.example.org
  thin-repository gc thin.example.org --keep-revisions 20 --keep-days 90 --delete
"""
)
@REPOSITORY
@click.option(
    "--keep-revisions",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Keep so many of the newest revisions.",
)
@click.option(
    "--keep-days",
    type=NumberRange(min=0),
    default=30,
    show_default=True,
    help="Keep the revisions that were the newest at any time within so many days; the last hour is always kept.",
)
@click.option("--delete", is_flag=True, help="Do it; otherwise only show what would be deleted.")
@click.option(
    "--wait",
    type=NumberRange(min=0),
    default=600,
    show_default=True,
    help="Longest wait for a publisher, each time, in seconds.",
)
@JSON
def gc(
    *,
    keep_revisions: int,
    keep_days: float,
    delete: bool,
    wait: float,
    as_json: bool,
    **place: Any,  # noqa: ANN401
) -> None:
    """Delete what only old revisions hold; shows what it would delete unless --delete is given.

    The newest revisions, and those that have a tag, are kept whole. A publisher may go on meanwhile.
    """
    with open_site(**place) as site, site.forgetting() as forget:
        collector = Collector(
            access=site.access(),
            retention=Retention(revisions=keep_revisions, days=keep_days),
            forget=forget,
            patience=wait,
        )
        found = collector.collect() if delete else collector.look()
    if as_json:
        write_document({"deleted": delete, **_document(found)})
    else:
        done = "deleted" if delete else "to delete"
        write_output(
            f"kept: {len(found.kept)} revisions from {found.kept[-1]} to {found.kept[0]}, and {found.tagged} tags\n"
            f"{done}: {found.objects:,} objects, {found.size:,} bytes\n"
        )


def _document(found: Collection) -> dict[str, object]:
    return {
        "kept": list(found.kept),
        "tags": found.tagged,
        "references": found.references,
        "objects": found.objects,
        "bytes": found.size,
    }
