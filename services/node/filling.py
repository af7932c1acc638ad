"""Filling a layer with the content of a layer tar, all of it or nothing."""

from collections.abc import AsyncIterable

from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.policy import LocalPolicy
from services.common.archive.unpack import unpack_by_policy
from services.common.replacement import replace_directory
from services.common.streams import BlockingReader, run_reader
from services.node.errors import UnsupportedError
from services.node.layers import Layer
from services.node.removal import delete_directory

__all__ = ["LayerFiller"]


class LayerFiller:
    """Unpacks layers.

    Parameters
    ----------
    limits
        Bounds for the archives.
    """

    def __init__(self, *, limits: ArchiveLimits) -> None:
        self._limits = limits

    async def fill(self, layer: Layer, chunks: AsyncIterable[bytes]) -> LayerContent:
        """Replace a layer's own files by the content of an uncompressed layer tar.

        Raises
        ------
        ArchiveError
            The tar is damaged, breaks a rule, or breaks a limit.
        UnsupportedError
            There is no tar at all.
        """
        return await run_reader(chunks, lambda source: self._fill(layer, source))

    def _fill(self, layer: Layer, source: BlockingReader) -> LayerContent:
        # Of an earlier attempt, if anything of it could not be deleted.
        delete_directory(layer.incoming)
        layer.incoming.mkdir()
        try:
            layer.incoming.chmod(0o755)
            content = unpack_by_policy(
                source, layer.incoming, deletions=OverlayDeletions(), policy=LocalPolicy(self._limits)
            )
            _refuse_empty(layer, content)
            replace_directory(layer.diff, layer.incoming)
        finally:
            # What was there before, or what has not become a layer.
            delete_directory(layer.incoming)
        return content


def _refuse_empty(layer: Layer, content: LayerContent) -> None:
    """Raise an error where the stream was empty: a request repeated after its body has been used up comes so."""
    if content.stream_size == 0:
        raise UnsupportedError(f"layer {layer.id}: the layer tar is empty, not even an end mark: try again")
