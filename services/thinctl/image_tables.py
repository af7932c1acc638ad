"""What people see of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from services.common.digest import Digest
from services.common.publisher_api import Collection, ImageAnswer, ImageLayer, ImageVersion, Steps
from services.common.readable import readable_size
from services.common.times import text_of
from services.thinctl.tables import grid_of_facts, say, show, since, size_or_dash

__all__ = ["show_collection", "show_image", "show_images"]

_COLOURS: Final = {"published": "green", "failed": "red", "removing": "yellow", "removed": "dim"}
_UNDER_WAY: Final = "cyan"


def show_images(images: Iterable[ImageAnswer]) -> None:
    """Show images, one a line."""
    table = _table("image", "state", "digest", "published", "checked", "outputs")
    table.add_column("reason", overflow="fold")
    for image in images:
        table.add_row(
            Text(image.name),
            _state(image),
            _short(image.published_digest or image.digest),
            _ago(image.published_at),
            _ago(image.checked_at),
            Text(_outputs(image.outputs, none="-")),
            Text(image.reason or "" if image.state != "published" else ""),
        )
    show(table)


def show_image(image: ImageAnswer, versions: Sequence[ImageVersion]) -> None:
    """Show all that is known of an image."""
    grid = grid_of_facts()
    grid.add_row("image", Text(image.name))
    if image.reference != image.name:
        grid.add_row("read from", Text(image.reference))
    grid.add_row("state", _state(image))
    if image.publisher is not None:
        grid.add_row("publisher", Text(image.publisher))
    if image.reason:
        grid.add_row("reason", Text(image.reason))
    if image.next_attempt is not None:
        grid.add_row("next attempt", text_of(image.next_attempt))
    grid.add_row("attempts", f"{image.attempts} failed")
    grid.add_row("digest", _oci(image.digest))
    grid.add_row("published digest", _oci(image.published_digest))
    if image.revision is not None:
        grid.add_row("revision", str(image.revision))
    grid.add_row("platforms", Text(", ".join(image.platforms)))
    if image.project is not None:
        grid.add_row("project", Text(image.project))
    grid.add_row("priority", str(image.priority))
    for name, value in (*_verified(image), *_facts_of_outputs(image)):
        grid.add_row(Text(name), Text(value))
    grid.add_row("took", _steps(image.steps))
    grid.add_row(
        "layers",
        f"{len(image.layers)}: {readable_size(image.bytes_fetched)} fetched, "
        f"{readable_size(image.bytes_known)} in the repository before",
    )
    for name, time in (
        ("asked for", image.asked_at),
        ("checked", image.checked_at),
        ("published", image.published_at),
        ("removed", image.removed_at),
        ("changed", image.updated_at),
    ):
        if time is not None:
            grid.add_row(name, f"{text_of(time)} ({since(time)} ago)")
    show(grid)
    _show_layers(image.layers)
    _show_versions(versions)


def show_collection(collection: Collection) -> None:
    """Show what a collection took out, or would."""
    size = readable_size(sum(layer.size or 0 for layer in collection.layers))
    done = "would go" if collection.dry_run else "are gone"
    flats = f", and {len(collection.flats)} flat images" if collection.flats else ""
    show(f"{len(collection.layers)} layers, {size} of files{flats}, {done}")
    if collection.layers:
        table = _table("layer", "files", "named last")
        for layer in collection.layers:
            table.add_row(layer.digest, size_or_dash(layer.size), _ago(layer.named_last))
        show(table)
    if collection.flats:
        table = _table("flat image", "named last")
        for flat in collection.flats:
            table.add_row(flat.digest, _ago(flat.named_last))
        show(table)
    for kept in collection.kept:
        say(f"{kept.digest} stays: {kept.reason}")


def _outputs(outputs: Mapping[str, JsonValue], *, none: str = "none") -> str:
    """Say in which ways an image is shown, each with what was chosen for it."""
    texts = []
    for name, chosen in sorted(outputs.items()):
        details = chosen.items() if isinstance(chosen, dict) else ()
        values = [f"{key} {value}" for key, value in sorted(details) if value]
        texts.append(f"{name} ({', '.join(values)})" if values else name)
    return ", ".join(texts) or none


def _verified(image: ImageAnswer) -> Iterator[tuple[str, str]]:
    """Say what was verified about an image."""
    for name, value in (image.verified or {}).items():
        if value is not None:
            yield f"verified {name}", str(value)


def _facts_of_outputs(image: ImageAnswer) -> Iterator[tuple[str, str]]:
    """Say in which ways an image is shown, where, and what people must know of that."""
    yield "outputs", _outputs(image.outputs)
    for name, places in image.places.items():
        yield f"{name} at", "\n".join(places)
    yield from _differences(image.report)


def _differences(report: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Say by kind how often a flat image differs from what Apptainer itself would unpack, and where first."""
    for found in report.values():
        for kind, about in sorted(found.items()) if isinstance(found, dict) else ():
            match about:
                case {"count": count, "first": [*first]}:
                    yield kind, ": ".join(filter(None, (str(count), ", ".join(map(str, first)))))


def _show_layers(layers: Sequence[ImageLayer]) -> None:
    if not layers:
        return
    table = _table("layer", "state", "archive")
    for layer in layers:
        table.add_row(layer.digest, Text(layer.state), readable_size(layer.size))
    show("", table)


def _show_versions(versions: Sequence[ImageVersion]) -> None:
    if not versions:
        return
    table = _table("version", "published", "replaced", "removed", "collected")
    for version in versions:
        times = (version.published_at, version.replaced_at, version.removed_at, version.collected_at)
        table.add_row(_oci(version.digest), *map(_ago, times))
    show("", table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True, justify="right" if name in ("archive", "files") else "left")
    return table


def _state(image: ImageAnswer) -> Text:
    return Text("refused" if image.is_refused else image.state, style=_COLOURS.get(image.state, _UNDER_WAY))


def _steps(steps: Steps) -> str:
    parts = (("resolving", steps.resolving), ("fetching", steps.fetching), ("publishing", steps.publishing))
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts if seconds is not None) or "-"


def _short(digest: str | None) -> str:
    return "-" if digest is None else Digest(digest).short


def _oci(digest: str | None) -> str:
    return "-" if digest is None else Digest(digest).oci


def _ago(time: datetime | None) -> str:
    return "-" if time is None else f"{since(time)} ago"
