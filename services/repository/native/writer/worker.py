"""A process that makes objects of content which lies in shared memory.

Python runs one thread at a time, and making an object of a small file is a dozen short calls: processes use all cores
where threads would hand one lock back and forth. A worker reads requests from a socket, answers in their order, and
ends when the socket does, so that it never outlives the publisher.

A request is numbers, three for each piece of content: its kind, and offset and size in the shared memory. An answer is
a status byte, then one record for each piece: whether it was known, its key, its digest. Where something failed, the
answer is a text.
"""

import json
import mmap
import struct
import sys
from array import array
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from services.repository.native.errors import NativeError
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import DIGEST_SIZE, ObjectKind
from services.repository.native.storage.object_files import ObjectFiles
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.encoder import Encoder
from services.repository.native.writer.index import CONTENT_KEY_SIZE, ContentIndex

__all__ = ["ANSWER", "DONE", "FAILED", "KINDS", "PLACE", "WorkerOrder"]

KINDS: Final = (ObjectKind.FILE, ObjectKind.CHUNK)
"""What the number of a kind is an index into."""
PLACE: Final = "Q"
"""Type of the numbers of a request."""
ANSWER: Final = struct.Struct(f"?{CONTENT_KEY_SIZE}s{DIGEST_SIZE}s")
DONE: Final = b"\0"
FAILED: Final = b"\1"


class WorkerOrder(BaseModel):
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


def main() -> None:
    """Work until the socket ends."""
    order = WorkerOrder.model_validate(json.loads(sys.argv[1]))
    index = ContentIndex(order.index)
    with (
        Connection(order.connection) as requests,
        mmap.mmap(order.memory, 0) as memory,
        ObjectFiles(order.files) as files,
    ):
        encoder = Encoder(compressor=Compressor(order.chosen), index=index, files=files, check=order.check)
        content = memoryview(memory)
        while True:
            try:
                request = requests.recv_bytes()
            except EOFError:
                break
            requests.send_bytes(_answer(request, content, index, encoder))
        content.release()
    index.close()


def _answer(request: bytes, content: memoryview, index: ContentIndex, encoder: Encoder) -> bytes:
    places = array(PLACE)
    places.frombytes(request)
    pieces = [
        (content[offset : offset + size], KINDS[kind])
        for kind, offset, size in zip(places[::3], places[1::3], places[2::3], strict=True)
    ]
    try:
        index.refresh()
        encoded = encoder.encode(pieces)
    except (OSError, NativeError) as error:
        return FAILED + str(error).encode(errors="backslashreplace")
    return DONE + b"".join(ANSWER.pack(one.known, one.key, one.digest) for one in encoded)


if __name__ == "__main__":
    main()
