"""Sparse files: GNU tar's old header and its three PAX forms (GNU tar manual, "Storing Sparse Files")."""

from typing import Final

from services.common.archive.entry import Extents
from services.common.archive.errors import ArchiveLimitError, MalformedArchiveError
from services.common.archive.header import number
from services.common.archive.limits import ArchiveLimits
from services.common.archive.pax import PaxRecords, pax_number
from services.common.archive.policy import ArchivePolicy
from services.common.archive.stream import BLOCK, TarStream

__all__ = ["SparseFile", "checked_extents", "gnu_sparse", "pax_sparse"]

_DESCRIPTOR: Final = 24
_IN_HEADER: Final = range(386, 386 + 4 * _DESCRIPTOR, _DESCRIPTOR)
_IN_EXTENSION: Final = range(0, 21 * _DESCRIPTOR, _DESCRIPTOR)
_HEADER_CONTINUES: Final = 482
_REAL_SIZE: Final = slice(483, 495)
_EXTENSION_CONTINUES: Final = 504
_LINE_LIMIT: Final = 20


class SparseFile:
    """What a sparse file's header says about it."""

    __slots__ = ("extents", "map_size", "name", "size")

    def __init__(self, *, size: int, extents: Extents, name: bytes | None = None, map_size: int = 0) -> None:
        self.size = size
        """Size of the file with its holes."""
        self.extents = extents
        self.name = name
        """The file's name, where the header has a made-up one."""
        self.map_size = map_size
        """Bytes of the entry's data that held the map."""


def gnu_sparse(block: bytes, stream: TarStream, policy: ArchivePolicy) -> SparseFile:
    """Read the map of an old GNU sparse header, whose extension blocks follow in the stream."""
    extents: Extents = []
    _read_descriptors(block, _IN_HEADER, extents, policy)
    continues = block[_HEADER_CONTINUES]
    while continues:
        if len(extents) > policy.limits.sparse_extents:
            raise _too_many(policy.limits)
        extension = bytes(stream.take(BLOCK))
        if not extension[0]:
            raise MalformedArchiveError("a sparse file's map goes on without extents")
        _read_descriptors(extension, _IN_EXTENSION, extents, policy)
        continues = extension[_EXTENSION_CONTINUES]
    return SparseFile(size=number(block[_REAL_SIZE], "real size", policy), extents=extents)


def _read_descriptors(block: bytes, positions: range, extents: Extents, policy: ArchivePolicy) -> None:
    for position in positions:
        if not block[position]:
            return
        offset = number(block[position : position + 12], "sparse offset", policy)
        extents.append((offset, number(block[position + 12 : position + _DESCRIPTOR], "sparse length", policy)))


def pax_sparse(records: PaxRecords, stream: TarStream, policy: ArchivePolicy, *, stored: int) -> SparseFile | None:
    """Read the map of a sparse file in PAX form 0.0, 0.1 or 1.0, or nothing where the entry is none.

    Parameters
    ----------
    records
        The entry's extended header.
    stream
        At the start of the entry's data; form 1.0 keeps its map there.
    policy
        What is taken; the limit `sparse_extents` is enforced.
    stored
        Size of the entry's data in the stream.
    """
    values, limits = records.values, policy.limits
    version = (values.get(b"GNU.sparse.major"), values.get(b"GNU.sparse.minor"))
    name = values.get(b"GNU.sparse.name") or None
    if version == (b"1", b"0"):
        real = values.get(b"GNU.sparse.realsize", values.get(b"GNU.sparse.size", b""))
        extents, map_size = _map_in_data(stream, policy, stored)
        return SparseFile(size=pax_number(real, "sparse size", policy), extents=extents, name=name, map_size=map_size)
    if version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
        policy.object_to(MalformedArchiveError(f"a sparse file of the unknown version {version}"))
        return None
    if b"GNU.sparse.map" in values:
        numbers = values[b"GNU.sparse.map"].split(b",") if values[b"GNU.sparse.map"] else []
    elif records.sparse or b"GNU.sparse.size" in values:
        numbers = records.sparse
    elif version != (None, None) or any(key.startswith(b"GNU.sparse.") for key in values):
        raise MalformedArchiveError("a sparse file without a map")
    else:
        return None
    blocks = values.get(b"GNU.sparse.numblocks")
    if len(numbers) % 2 or (blocks is not None and pax_number(blocks, "sparse count", policy) != len(numbers) // 2):
        raise MalformedArchiveError("a sparse file's map has another number of extents than its header says")
    if len(numbers) // 2 > limits.sparse_extents:
        raise _too_many(limits)
    decoded = [pax_number(value, "sparse map", policy) for value in numbers]
    real = values.get(b"GNU.sparse.size", values.get(b"GNU.sparse.realsize", b""))
    size = pax_number(real, "sparse size", policy)
    return SparseFile(size=size, extents=list(zip(decoded[::2], decoded[1::2], strict=True)), name=name)


def _map_in_data(stream: TarStream, policy: ArchivePolicy, stored: int) -> tuple[Extents, int]:
    """Read form 1.0's map: decimal lines, the number of extents first, filled up to whole blocks."""
    pending = b""
    used = 0

    def next_number() -> int:
        nonlocal pending, used
        while b"\n" not in pending:
            if len(pending) > _LINE_LIMIT or used + BLOCK > stored:
                raise MalformedArchiveError("a sparse file's map in its data is cut short or holds no numbers")
            pending += bytes(stream.take(BLOCK))
            used += BLOCK
        line, _, pending = pending.partition(b"\n")
        return pax_number(line, "sparse map", policy)

    count = next_number()
    if count > policy.limits.sparse_extents:
        raise _too_many(policy.limits)
    return [(next_number(), next_number()) for _ in range(count)], used


def checked_extents(sparse: SparseFile, stored: int) -> Extents:
    """Return the extents in order, none empty.

    Raises
    ------
    MalformedArchiveError
        They overlap, leave the file, or say another amount of data than the entry holds.
    """
    position = total = 0
    for offset, length in sparse.extents:
        if offset < position or length < 0 or offset + length > sparse.size:
            raise MalformedArchiveError("a sparse file's map is out of order, overlaps, or leaves the file")
        position = offset + length
        total += length
    if total != stored:
        raise MalformedArchiveError(f"a sparse file's map tells of {total} bytes of data, its entry holds {stored}")
    return [extent for extent in sparse.extents if extent[1]]


def _too_many(limits: ArchiveLimits) -> ArchiveLimitError:
    return ArchiveLimitError(f"a sparse file of more than {limits.sparse_extents} extents (limit sparse_extents)")
