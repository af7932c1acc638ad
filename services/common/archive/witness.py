"""Whoever wants to know how a tar stream is made up, beside what is made of its entries."""

from typing import Final, Protocol

__all__ = ["NOBODY", "StreamWitness"]


class StreamWitness(Protocol):
    """Told every byte of a stream, in order: what is content of files that a tree has, and what is not."""

    def frame(self, raw: bytes | memoryview) -> None:
        """Take what is no content: headers, padding, the end of the archive. A view is valid during the call only."""

    def file(self, name: bytes, size: int) -> None:
        """Take that content of so many bytes follows; the name is as the archive has it."""

    def content(self, raw: memoryview) -> None:
        """Take some of the content; the view is valid during the call only."""

    def lose(self, reason: str) -> None:
        """Take that the stream cannot be made of its frames and the tree's files again, and why."""


class _Nobody:
    def frame(self, raw: bytes | memoryview) -> None:
        pass

    def file(self, name: bytes, size: int) -> None:
        pass

    def content(self, raw: memoryview) -> None:
        pass

    def lose(self, reason: str) -> None:
        pass


NOBODY: Final[StreamWitness] = _Nobody()
"""Does not want to know."""
