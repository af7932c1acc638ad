"""Check a layer's tar stream as completely as unpacking does, without writing anything."""

from services.common.archive.layer import read_layer
from services.common.archive.limits import ArchiveLimits
from services.common.archive.memorytree import MemoryTree
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes
from services.common.archive.stream import Source

__all__ = ["survey"]


def survey(source: Source, *, limits: ArchiveLimits) -> LayerContent:
    """Read a layer; blocking.

    Parameters
    ----------
    source
        A blocking reader of the uncompressed stream, with `readinto`; it is read to its end.
    limits
        Enforced while the stream is read.

    Raises
    ------
    ArchiveError
        The archive breaks a rule or a limit.
    """
    return read_layer(source, MemoryTree(), limits=limits, notes=Notes())
