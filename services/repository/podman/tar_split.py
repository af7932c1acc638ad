"""What podman needs, besides the files of a layer, to make the layer's archive again, byte for byte.

Without it podman makes another archive of the same files, which has another digest, so that `podman save` and
`podman push` fail. The form is that of github.com/vbatts/tar-split (`tar/storage`), which containers-storage reads from
`overlay-layers/LAYER.tar-split.gz`: lines of JSON, compressed by gzip::

    {"type":2,"payload":"BASE64","position":0}                               bytes as they are
    {"type":1,"name":"NAME","size":5,"payload":"BASE64","position":1}        all content of a file, and its CRC-64

There is one for every layer of a repository that can have stores: images share layers, and whether one of them is ever
to be in a store is not known when the first one comes. It depends on nothing but the archive.
"""

import json
from binascii import b2a_base64
from typing import IO, Final, Protocol, cast

from fastcrc.crc64 import go_iso
from isal import isal_zlib

from services.common.sidecar import LayerSidecar

__all__ = ["TarSplit"]

_MOST: Final = 1 << 30
"""Bytes of an archive that may be no content of files; headers of a million files are no more."""
_SEGMENT: Final = 64 << 10
"""Bytes of a segment from which on it is written, since podman holds one in memory."""
_LINES: Final = 64 << 10
"""Bytes of lines that are compressed at a time."""
_GZIP: Final = 31
"""zlib's `wbits` for the form of gzip, with no time in it."""
_LEVEL: Final = 1


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class TarSplit:
    """Writes it while an archive is read, in constant memory; blocking, a `StreamWitness`.

    Parameters
    ----------
    sink
        Gets it.
    """

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._compressor = cast("_Compressor", isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP))
        self._segment = bytearray()
        self._lines: list[bytes] = []
        self._waiting = 0
        self._position = 0
        self._total = 0
        self._name = b""
        self._size = 0
        self._left = 0
        self._sum = 0
        self._lost: str | None = None
        """Why there is none for this archive."""

    def frame(self, raw: bytes | memoryview) -> None:
        """Take what is no content of files."""
        self._total += len(raw)
        if self._total > _MOST:
            self.lose(f"more than {_MOST >> 20} MiB that are no content of files")
        if self._lost is None:
            self._segment += raw
            if len(self._segment) >= _SEGMENT:
                self._end_segment()

    def file(self, name: bytes, size: int) -> None:
        """Take that content of so many bytes follows."""
        self._name, self._size, self._left, self._sum = name, size, size, 0

    def content(self, raw: memoryview) -> None:
        """Take some of the content."""
        if self._lost is not None:
            return
        self._sum = go_iso(raw, self._sum) if self._left < self._size else go_iso(raw)
        self._left -= len(raw)
        if not self._left:
            self._end_segment()
            payload = b2a_base64(self._sum.to_bytes(8, "big"), newline=False)
            self._line(b'{"type":1,%b,"size":%d,"payload":"%b"' % (_named(self._name), self._size, payload))

    def lose(self, reason: str) -> None:
        """Give up."""
        if self._lost is None:
            self._lost = reason
            self._segment.clear()
            self._lines.clear()

    def finish(self, sidecar: LayerSidecar) -> LayerSidecar:
        """Write what is left when the archive has been verified; return the sidecar that says whether there is one."""
        if self._lost is not None:
            note = f"podman can neither save nor push what has this layer: its archive has {self._lost}"
            return sidecar.model_copy(update={"notes": (*sidecar.notes, note)})
        self._end_segment()
        self._compress()
        self._sink.write(self._compressor.flush())
        return sidecar.model_copy(update={"tar_split": True})

    def _end_segment(self) -> None:
        if self._segment:
            self._line(b'{"type":2,"payload":"%b"' % b2a_base64(self._segment, newline=False))
            self._segment.clear()

    def _line(self, line: bytes) -> None:
        line = b'%b,"position":%d}\n' % (line, self._position)
        self._position += 1
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= _LINES:
            self._compress()

    def _compress(self) -> None:
        self._sink.write(self._compressor.compress(b"".join(self._lines)))
        self._lines.clear()
        self._waiting = 0


def _named(name: bytes) -> bytes:
    """Return the name as a member of an object; JSON has no other bytes than those of UTF-8."""
    try:
        return b'"name":%b' % json.dumps(name.decode()).encode()
    except UnicodeDecodeError:
        return b'"name_raw":"%b"' % b2a_base64(name, newline=False)
