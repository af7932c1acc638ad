"""What people see."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from services.common.command_line import write_output
from services.common.digest import Digest
from services.common.publisher_api import Disagreement, LastCheck, Layer, PublisherEntry, Status
from services.common.readable import readable_size, readable_span
from services.common.times import text_of

__all__ = [
    "grid_of_facts",
    "say",
    "show",
    "show_check",
    "show_layer",
    "show_layers",
    "show_publishers",
    "show_status",
    "since",
    "size_or_dash",
]

_WIDE: Final = 200
"""Columns where the output is no terminal: nothing is to be cut off."""
_SHOWN_DIGESTS: Final = 20
"""Layers or images that are named of each kind of disagreement."""
_COLOURS: Final[Mapping[str, str]] = {
    "published": "green",
    "failed": "red",
    "publishing": "cyan",
    "verified": "cyan",
    "fetching": "cyan",
}

_STANDINGS: Final[Mapping[str, str]] = {"leading": "green", "following": "cyan", "ended": "dim", "gone": "red"}


def show(*items: RenderableType) -> None:
    """Write to the standard output."""
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False, emoji=False)
    with console.capture() as written:
        console.print(*items, sep="\n")
    write_output(written.get())


def say(text: str) -> None:
    """Tell of progress, on the standard error output."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show_status(status: Status) -> None:
    """Show how the publisher is."""
    grid = grid_of_facts()
    if status.paused is not None:
        reason = f": {status.paused.reason}" if status.paused.reason else ""
        grid.add_row("publishing", Text(f"paused for {since(status.paused.since)}{reason}", style="yellow"))
    elif status.waiting_for:
        grid.add_row("publishing", Text(f"waits: {status.waiting_for}", style="yellow"))
    else:
        grid.add_row("publishing", Text("goes on", style="green"))
    grid.add_row("repository", Text(status.repository))
    if status.publishers:
        grid.add_row("publishers", _publishers(status.publishers))
    grid.add_row("layers", _written(status.layers, status.refused))
    grid.add_row("oldest waiting", readable_span(status.oldest_unpublished_seconds))
    if status.images:
        grid.add_row("images", _written(status.images, status.refused_images))
        grid.add_row("oldest image", readable_span(status.oldest_unpublished_image_seconds))
    grid.add_row("transaction", Text(_transaction(status)))
    grid.add_row("last sweep", Text(_sweep(status)))
    if status.check is not None:
        grid.add_row("last check", Text(_check(status.check)))
    if status.trusted_until is not None:
        left = (status.trusted_until - datetime.now(UTC)).total_seconds()
        grid.add_row("whitelist", f"valid for {readable_span(left)}" if left > 0 else Text("expired", style="red"))
    grid.add_row("spool", f"{readable_size(status.spool.used)} of {readable_size(status.spool.limit)}")
    for name, disk in status.disks.items():
        if disk is not None:
            grid.add_row(f"disk of {name}", f"{readable_size(disk.free)} free of {readable_size(disk.total)}")
    show(grid)


def show_layers(layers: Iterable[Layer]) -> None:
    """Show layers, one a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "state", "archive", "files", "changed"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("archive", "files") else "left")
    table.add_column("reason", overflow="fold")
    for layer in layers:
        table.add_row(
            layer.digest[:12],
            _state(layer),
            size_or_dash(layer.archive_size),
            size_or_dash(layer.tree_size),
            f"{since(layer.updated_at)} ago",
            Text(layer.reason or ""),
        )
    show(table)


def show_layer(layer: Layer) -> None:
    """Show all that is known of a layer."""
    grid = grid_of_facts()
    grid.add_row("digest", layer.digest)
    grid.add_row("state", _state(layer))
    if layer.publisher is not None:
        grid.add_row("publisher", Text(layer.publisher))
    if layer.reason:
        grid.add_row("reason", Text(layer.reason))
    if layer.next_attempt is not None:
        grid.add_row("next attempt", text_of(layer.next_attempt))
    grid.add_row("attempts", f"{layer.attempts} failed")
    if layer.revision is not None:
        grid.add_row("revision", str(layer.revision))
    grid.add_row("archive", size_or_dash(layer.archive_size))
    grid.add_row("files", size_or_dash(layer.tree_size))
    for note in layer.notes:
        grid.add_row("not kept", Text(note))
    grid.add_row("announced", f"{text_of(layer.announced_at)} ({since(layer.announced_at)} ago)")
    grid.add_row("changed", f"{text_of(layer.updated_at)} ({since(layer.updated_at)} ago)")
    show(grid)


def show_publishers(publishers: Iterable[PublisherEntry]) -> None:
    """Show publishers, one a line."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("publisher", "standing", "layers", "images", "started", "last seen"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("layers", "images") else "left")
    for publisher in publishers:
        table.add_row(
            Text(publisher.name),
            Text(publisher.standing, style=_STANDINGS.get(publisher.standing, "")),
            str(publisher.layers),
            str(publisher.images),
            f"{since(publisher.started_at)} ago",
            f"{since(publisher.seen_at)} ago",
        )
    show(table)


def show_check(layers: int, found: Mapping[str, Sequence[Disagreement]]) -> None:
    """Show what a check has found, by kind, with what to do."""
    if not found:
        show(f"{layers} layers: repository, journal and bucket agree")
        return
    show(f"{layers} layers; disagreements about {sum(map(len, found.values()))}:")
    for kind, items in found.items():
        first = items[0]
        heading = Text(f"\n{kind}: {len(items)}", style="yellow" if first.harmless else "bold red")
        show(heading, f"  {first.meaning}", f"  to do: {first.remedy}")
        show(*(Text(f"    {item.image or item.digest}") for item in items[:_SHOWN_DIGESTS]))
        if len(items) > _SHOWN_DIGESTS:
            show(f"    and {len(items) - _SHOWN_DIGESTS} others; --json names all")


def grid_of_facts() -> Table:
    """Make a table of names and what they stand for."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def size_or_dash(count: int | None) -> str:
    """Write a number of bytes, if it is known."""
    return "-" if count is None else readable_size(count)


def _state(layer: Layer) -> Text:
    state = "refused" if layer.is_refused else layer.state
    return Text(state, style=_COLOURS.get(layer.state, ""))


def _written(numbers: Mapping[str, int], refused: int) -> str:
    counts = [f"{count} {state}" for state, count in numbers.items() if count]
    if refused:
        counts.append(f"{refused} of the failed ones refused for good")
    return ", ".join(counts) or "none"


def _publishers(publishers: Sequence[PublisherEntry]) -> Text:
    counts = Counter(publisher.standing for publisher in publishers)
    leader = next((publisher.name for publisher in publishers if publisher.standing == "leading"), None)
    others = ", ".join(f"{count} {standing}" for standing, count in counts.items() if standing != "leading")
    return Text(", ".join(filter(None, (f"{leader} leads" if leader else "none leads", others))))


def _transaction(status: Status) -> str:
    transaction = status.transaction
    if transaction is None:
        elsewhere = status.layers.get("publishing", 0) if len(status.publishers) > 1 else 0
        return f"another publisher's, of {elsewhere} layers" if elsewhere else "none"
    named = ", ".join(Digest(digest).short for digest in transaction.layers[:3])
    more = f" and {len(transaction.layers) - 3} others" if len(transaction.layers) > 3 else ""  # noqa: PLR2004 - as above
    return f"{transaction.stage} for {since(transaction.since)}: {named}{more}, {readable_size(transaction.bytes)}"


def _sweep(status: Status) -> str:
    sweep = status.sweep
    if not status.leads and not sweep.begun and len(status.publishers) > 1:
        return "by the publisher that leads"
    if sweep.ended_at is None:
        return "under way" if sweep.begun else "none yet"
    outcome = f"failed: {sweep.error}" if sweep.error else f"found {sweep.found}"
    return f"{since(sweep.ended_at)} ago, {outcome}"


def _check(check: LastCheck) -> str:
    if check.error is not None:
        return f"{since(check.ended_at)} ago, not finished: {check.error}"
    found = f"{check.disagreements} disagreements: see thinctl check" if check.disagreements else "all agree"
    return f"{since(check.ended_at)} ago, {check.layers} layers and {check.images} images, {found}"


def since(time: datetime) -> str:
    """Write how long ago something was."""
    return readable_span((datetime.now(UTC) - time).total_seconds())
