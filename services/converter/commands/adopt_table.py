"""What is in a repository that is to be taken over, as people and as scripts read it."""

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from services.common.command_line import write_output
from services.common.image_name import ImageName
from services.common.image_outputs import outputs_document
from services.converter.adoption.model import FoundImage, Inventory, Verdict
from services.converter.adoption.taking import Taken

__all__ = ["inventory_document", "show_inventory", "show_taken", "taken_document"]

_WIDE: Final = 400
"""Columns where the output is no terminal: nothing is to be cut off."""
_UNLISTED: Final = "no list names it"


def show_inventory(inventory: Inventory, unlisted: Collection[ImageName] | None) -> None:
    """Write what has been found to the standard output.

    Parameters
    ----------
    inventory
        What there is.
    unlisted
        Those images that no wish list names; None where no list was given.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("IMAGE", "WHAT IS DONE", "OUTPUTS", "LAYERS", "TO FETCH", "WHAT IS WRONG"):
        table.add_column(title, overflow="fold")
    for image in inventory.images:
        wrong = sum(not inventory.layers[digest].is_right for digest in image.layers)
        table.add_row(
            image.name,
            image.verdict,
            "\n".join(outputs_document(image.outputs)),
            str(len(image.layers)),
            str(wrong),
            "\n".join((*image.faults, *_summary(inventory, image), *_unlisted(image, unlisted))),
        )
    console = Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False, emoji=False)
    with console.capture() as written:
        console.print(table)
    write_output(written.get())
    write_output("".join(f"{line}\n" for line in _rest(inventory)))


def _summary(inventory: Inventory, image: FoundImage) -> Iterator[str]:
    """Say what is wrong with layers of an image, each thing once."""
    counts = Counter(fault for digest in image.layers for fault in inventory.layers[digest].faults)
    for fault, count in counts.items():
        yield f"{count} {'layer' if count == 1 else 'layers'}: {fault}"


def _unlisted(image: FoundImage, unlisted: Collection[ImageName] | None) -> Iterator[str]:
    if unlisted is not None and image.name in unlisted:
        yield _UNLISTED


def _rest(inventory: Inventory) -> Iterator[str]:
    for store in inventory.stores:
        yield f"{store.path}: {len(store.images)} images{''.join(f'; {fault}' for fault in store.faults)}"
    yield from inventory.strays
    anew = [image for image in inventory.images if image.verdict is Verdict.ANEW]
    layers = {digest for image in anew for digest in image.layers}
    wrong = sum(not inventory.layers[digest].is_right for digest in layers)
    yield (
        f"{len(inventory.images)} images, {len(anew)} of them to be made anew: {wrong} of their {len(layers)} layers "
        "are fetched, the others are kept"
    )


def inventory_document(inventory: Inventory, unlisted: Collection[ImageName] | None) -> dict[str, Any]:
    """Return what has been found for scripts; parameters as of `show_inventory`."""
    return {
        "repository_root": inventory.root,
        "images": [
            {
                "name": str(image.name),
                "verdict": image.verdict.value,
                "platforms": list(image.platforms),
                "outputs": outputs_document(image.outputs),
                "layers": list(image.layers),
                "flats": list(image.flats),
                "faults": list(image.faults),
                **({} if unlisted is None else {"listed": image.name not in unlisted}),
            }
            for image in inventory.images
        ],
        "layers": [
            {"digest": layer.digest, "right": layer.is_right, "faults": list(layer.faults)}
            for _, layer in sorted(inventory.layers.items())
        ],
        "stores": [
            {"path": store.path, "images": sorted(store.images), "faults": list(store.faults)}
            for store in inventory.stores
        ],
        "strays": list(inventory.strays),
    }


def show_taken(taken: Taken) -> None:
    """Write what has come of a take-over to the standard output."""
    waiting = f", {len(taken.waiting)} asked for" if taken.waiting else ""
    write_output(f"{len(taken.published)} images published, {len(taken.failed)} failed{waiting}\n")


def taken_document(taken: Taken) -> dict[str, Any]:
    """Return what has come of a take-over for scripts."""
    return {
        "published": sorted(taken.published),
        "failed": dict(sorted(taken.failed.items())),
        "waiting": taken.waiting,
    }
