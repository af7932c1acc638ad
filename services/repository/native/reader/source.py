"""Where the files of a repository are read: any storage, or any server of static files."""

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError, StorageError
from services.repository.native.storage.interface import Source

__all__ = ["HttpSource", "Source", "pieces_of", "read_file"]

_PIECE: Final = 256 << 10
"""Most bytes that are read at a time."""
_TIMEOUT: Final = 30.0
"""Longest silence of a server, in seconds."""
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_ABSENT: Final = frozenset({403, 404, 410})
"""A bucket that may not be listed answers 403 for what it does not hold."""


def pieces_of(source: Source, path: str) -> Iterator[bytes]:
    """Read a file in pieces.

    Raises
    ------
    ObjectMissingError, StorageError
        As `Source.open`, also while it is read.
    """
    with source.open(path) as stream:
        while True:
            try:
                piece = stream.read(_PIECE)
            # A ValueError is about the length of a chunk.
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise StorageError(f"{path} in {source} cannot be read to its end: {error}") from error
            if not piece:
                return
            yield piece


def read_file(source: Source, path: str, *, limit: int) -> bytes:
    """Read a small file whole.

    Parameters
    ----------
    source
        Where it is.
    path
        Its path below the repository's root.
    limit
        Most bytes that it may have.

    Raises
    ------
    ObjectMissingError, StorageError
        As `Source.open`.
    BrokenRepositoryError
        It is larger.
    """
    content = bytearray()
    for piece in pieces_of(source, path):
        content += piece
        if len(content) > limit:
            raise BrokenRepositoryError(f"{path} is larger than {limit} bytes")
    return bytes(content)


class HttpSource:
    """A repository behind a server of static files: a stratum 0 or 1, a bucket that everybody may read.

    Parameters
    ----------
    url
        `http(s)://HOST[:PORT]/PATH` of the directory that holds `.cvmfspublished`.
    timeout
        Longest silence of the server, in seconds.

    Raises
    ------
    StorageError
        The address has another form.
    """

    def __init__(self, url: str, *, timeout: float = _TIMEOUT) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StorageError(f"not the address of a repository, http(s)://HOST[:PORT]/PATH: {url[:200]!r}")
        self._base = url.rstrip("/")
        self._timeout = timeout

    def __str__(self) -> str:
        return self._base

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file."""
        with self._request("GET", path) as answer:
            yield answer
            # Of a connection that ends too early the client of the standard library makes an end of the content.
            if answer.length:
                raise StorageError(f"{self._base}/{path} cannot be read to its end: {answer.length} bytes are missing")

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        try:
            with self._request("HEAD", path) as answer:
                length = answer.headers.get("Content-Length") or "0"
        except ObjectMissingError:
            return None
        if not _LENGTH.fullmatch(length):
            raise StorageError(f"{self._base}/{path} has the length {length[:80]!r}, which is no number")
        return int(length)

    def _request(self, method: str, path: str) -> http.client.HTTPResponse:
        url = f"{self._base}/{path}"
        request = urllib.request.Request(url, method=method)  # noqa: S310 - the scheme has been checked
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self._timeout)  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _ABSENT:
                raise ObjectMissingError(f"{url} does not exist (HTTP {error.code})") from None
            raise StorageError(f"{url} cannot be read: HTTP {error.code}") from None
        # A ValueError is about the address of a redirect.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageError(f"{url} cannot be read: {getattr(error, 'reason', error)}") from error
        return answer
