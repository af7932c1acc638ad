"""What can be wrong with a layer archive or with the tree that becomes one.

Tree::

    SuiteError
    └── ArchiveError
        ├── MalformedArchiveError     the tar stream breaks its format, is cut short, or says two things at once
        ├── UnsafeArchiveError        a name, link or deletion that would leave or confuse the layer
        ├── UnsupportedEntryError     an entry of a type that a layer cannot hold
        ├── ArchiveLimitError         a limit was passed
        ├── CompressionError          the compressed form is corrupt, cut short, or of an unknown kind
        ├── ArchiveReadError          the source of the stream failed
        ├── ArchiveWriteError         the place that an archive is written to failed
        ├── TreeWriteError            the local file system refused to hold the layer
        ├── TreeReadError             the local file system failed while a tree was read
        ├── TreeChangedError          a tree changed while it was read, so that no right archive can be made of it
        └── UnsupportedTreeError      a tree holds what a layer archive cannot say

`ArchiveReadError`, `ArchiveWriteError`, `TreeWriteError` and `TreeReadError` say nothing about the archive itself: the
same archive may pass on another attempt. Their `__cause__` is the error of the operating system or of the source.
"""

from services.common.errors import SuiteError

__all__ = [
    "ArchiveError",
    "ArchiveLimitError",
    "ArchiveReadError",
    "ArchiveWriteError",
    "CompressionError",
    "MalformedArchiveError",
    "TreeChangedError",
    "TreeReadError",
    "TreeWriteError",
    "UnsafeArchiveError",
    "UnsupportedEntryError",
    "UnsupportedTreeError",
]


class ArchiveError(SuiteError):
    """A layer archive, or a tree that is to become one, cannot be used; the text says what and where."""


class MalformedArchiveError(ArchiveError):
    """The tar stream breaks its format, is cut short, or holds two values where readers take one or the other."""


class UnsafeArchiveError(ArchiveError):
    """A name, a link or a deletion that would leave the layer or cannot mean anything in it."""


class UnsupportedEntryError(ArchiveError):
    """An entry of a type that a layer cannot hold."""


class ArchiveLimitError(ArchiveError):
    """The archive is larger in some respect than the limits allow; the text names the limit."""


class CompressionError(ArchiveError):
    """The compressed form is corrupt, cut short, followed by something else, or of an unknown kind."""


class ArchiveReadError(ArchiveError):
    """The source of the stream failed; says nothing about the archive."""


class ArchiveWriteError(ArchiveError):
    """The place that an archive is written to failed; says nothing about the tree."""


class TreeWriteError(ArchiveError):
    """The local file system refused something while the layer was unpacked; says nothing about the archive."""


class TreeReadError(ArchiveError):
    """The local file system failed while a tree was read."""


class TreeChangedError(ArchiveError):
    """A tree changed while it was read, in a way that leaves no right archive."""


class UnsupportedTreeError(ArchiveError):
    """A tree holds something that a layer archive has no form for."""
