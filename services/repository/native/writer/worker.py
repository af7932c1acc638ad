"""A process that makes objects: of content that lies in shared memory, and of the rows of catalogs.

Python runs one thread at a time, and making an object of a small file is a dozen short calls: processes use all cores
where threads would hand one lock back and forth. A worker reads requests from a socket, answers in their order, and
ends when the socket does, so that it never outlives the publisher.

The first byte of a request says what it is about. Content is numbers, three for each piece: its kind, and offset and
size in the shared memory; its objects are made where they are not known, or in any case. A catalog is its packed rows,
or what those of a flat image are made of. An answer is a status byte, then one record for each piece: whether it was
known, its key, its digest; or the digest and the size of the catalog, and what is counted of a flat image's. Where
something failed, the answer is a text.

It imports as little as it can: of what a publisher spends on a few small layers, starting the processes is a good part.
"""

import json
import mmap
import socket
import sqlite3
import struct
import sys
from array import array
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from services.repository.native.errors import NativeError
from services.repository.native.flat.contents import unpack_flat
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import DIGEST_SIZE, ObjectKind
from services.repository.native.storage.interface import Buffer
from services.repository.native.storage.object_files import ObjectFiles
from services.repository.native.writer.catalog_rows import CatalogRows, empty_catalog, make_catalog
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.encoder import Encoded, Encoder
from services.repository.native.writer.frames import receive, send
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.new_rows import CONTENT_KEY_SIZE

__all__ = ["ANEW", "ANSWER", "CATALOG", "CONTENT", "DONE", "FAILED", "FLAT", "KINDS", "PLACE", "STORED", "WorkerOrder"]

KINDS: Final = (ObjectKind.FILE, ObjectKind.CHUNK)
"""What the number of a kind is an index into."""
CONTENT: Final = b"\0"
CATALOG: Final = b"\1"
FLAT: Final = b"\2"
ANEW: Final = b"\3"
"""Content whose objects are written whatever is there."""
PLACE: Final = "Q"
"""Type of the numbers of a request."""
ANSWER: Final = struct.Struct(f"?{CONTENT_KEY_SIZE}s{DIGEST_SIZE}s")
STORED: Final = struct.Struct(f"{DIGEST_SIZE}sQ")
DONE: Final = b"\0"
FAILED: Final = b"\1"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker is started with, as its only argument."""

    connection: int
    """Descriptor of its socket."""
    memory: int
    """Descriptor of the shared memory."""
    files: Path
    """The directory that holds `data`."""
    index: Path
    chosen: RepositoryFormat
    check: bool
    """Whether the index is believed only where the object's file is there."""

    def encode(self) -> str:
        """Write it as a text."""
        return json.dumps({**asdict(self), "files": str(self.files), "index": str(self.index)})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `encode` has written."""
        order = json.loads(text)
        order["chosen"] = RepositoryFormat.of(order["chosen"])
        order["files"], order["index"] = Path(order["files"]), Path(order["index"])
        return cls(**order)


class _Worker:
    """Answers requests.

    Parameters
    ----------
    content
        The shared memory.
    """

    def __init__(self, order: WorkerOrder, *, content: memoryview, index: ContentIndex, files: ObjectFiles) -> None:
        self._content = content
        self._index = index
        self._files = files
        self._compressor = Compressor(order.chosen)
        self._encoder = Encoder(compressor=self._compressor, index=index, files=files, check=order.check)
        self._empty = empty_catalog(self._compressor.algorithm)
        self._works = {
            CONTENT: self._encode,
            ANEW: self._encode_anew,
            CATALOG: self._store_catalog,
            FLAT: self._store_flat,
        }

    def answer(self, request: bytearray) -> bytes:
        """Do what is asked for."""
        try:
            return DONE + self._works[bytes(request[:1])](memoryview(request)[1:])
        except (OSError, sqlite3.Error, NativeError) as error:
            return FAILED + str(error).encode(errors="backslashreplace")

    def _encode(self, request: memoryview) -> bytes:
        self._index.refresh()
        return _packed(self._encoder.encode(self._pieces(request)))

    def _encode_anew(self, request: memoryview) -> bytes:
        return _packed(self._encoder.encode_anew(self._pieces(request)))

    def _pieces(self, request: memoryview) -> Sequence[tuple[Buffer, ObjectKind]]:
        places = array(PLACE)
        places.frombytes(request)
        return [
            (self._content[offset : offset + size], KINDS[kind])
            for kind, offset, size in zip(places[::3], places[1::3], places[2::3], strict=True)
        ]

    def _store_catalog(self, request: memoryview) -> bytes:
        return self._store(CatalogRows.unpack(request))

    def _store_flat(self, request: memoryview) -> bytes:
        contents, below = unpack_flat(request)
        rows, counters = contents.rows(below)
        return self._store(rows) + array(PLACE, counters.values()).tobytes()

    def _store(self, rows: CatalogRows) -> bytes:
        plain = make_catalog(self._empty, rows)
        stored = self._compressor.compress(plain)
        name = self._compressor.name(stored)
        self._files.write(name.path(ObjectKind.CATALOG), stored)
        return STORED.pack(name.digest, len(plain))


def _packed(objects: Sequence[Encoded]) -> bytes:
    return b"".join(ANSWER.pack(one.known, one.key, one.digest) for one in objects)


def main() -> None:
    """Work until the socket ends."""
    order = WorkerOrder.parse(sys.argv[1])
    with (
        closing(ContentIndex(order.index)) as index,
        socket.socket(fileno=order.connection) as requests,
        mmap.mmap(order.memory, 0) as memory,
        memoryview(memory) as content,
        ObjectFiles(order.files) as files,
    ):
        worker = _Worker(order, content=content, index=index, files=files)
        # The publisher closes the socket when it ends, and so does its kill.
        with suppress(EOFError, ConnectionError):
            while True:
                send(requests, worker.answer(receive(requests)))


if __name__ == "__main__":
    main()
