"""How far every layer is: bars at a terminal, lines elsewhere. Both go to the standard error output."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from services.common.digest import Digest
from services.registry.images import ImageLayer

__all__ = ["LayerProgress", "PlainProgress", "TerminalProgress", "choose_progress"]


class LayerProgress(Protocol):
    """Shows how far layers are."""

    def add(self, layer: ImageLayer) -> None:
        """A layer is about to be worked on."""

    def transferred(self, digest: Digest, count: int) -> None:
        """So many further bytes of a layer have gone through."""

    def reached(self, digest: Digest, stage: str) -> None:
        """A layer has come to a stage."""


class PlainProgress:
    """One line for every stage of a layer."""

    def add(self, layer: ImageLayer) -> None:
        """Say how large the layer is."""
        self._say(layer.digest, f"{layer.size:,} bytes")

    def transferred(self, digest: Digest, count: int) -> None:
        """Say nothing: a line for every megabyte would hide the others."""

    def reached(self, digest: Digest, stage: str) -> None:
        """Say it."""
        self._say(digest, stage)

    def _say(self, digest: Digest, text: str) -> None:
        sys.stderr.write(f"{digest.short}: {text}\n")
        sys.stderr.flush()


class TerminalProgress:
    """One bar for every layer.

    Parameters
    ----------
    progress
        Draws the bars.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[Digest, TaskID] = {}

    def add(self, layer: ImageLayer) -> None:
        """Draw a bar."""
        self._tasks[layer.digest] = self._progress.add_task(layer.digest.short, total=layer.size, stage="waiting")

    def transferred(self, digest: Digest, count: int) -> None:
        """Move the bar."""
        self._progress.advance(self._tasks[digest], count)

    def reached(self, digest: Digest, stage: str) -> None:
        """Write the stage beside the bar."""
        self._progress.update(self._tasks[digest], stage=stage)


def choose_progress() -> tuple[LayerProgress, AbstractContextManager[object]]:
    """Return what fits the standard error output, and the context that it is shown in."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return PlainProgress(), nullcontext()
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[stage]}"),
        console=console,
    )
    return TerminalProgress(progress), progress
