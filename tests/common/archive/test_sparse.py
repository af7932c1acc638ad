"""Sparse files in their four forms."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.archive.model import LayerContent
from tests.support.tars import GNU_MAGIC, archive, header, member, octal, pax

Put = Callable[..., LayerContent]

SPARSE_SIZE = 3_000_000
SPARSE_DATA = ((4096, b"first" * 100), (1_000_448, b"second" * 100))


def gnu_sparse() -> bytes:
    """Build GNU tar's old form: the map is in the header, from byte 386 on."""
    content = b"".join(data for _, data in SPARSE_DATA)
    block = bytearray(header(b"f", b"S", size=len(content), magic=GNU_MAGIC))
    fields = b"".join(octal(offset, 12) + octal(len(data), 12) for offset, data in SPARSE_DATA)
    block[386 : 386 + len(fields)] = fields
    block[483:495] = octal(SPARSE_SIZE, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content + bytes(-len(content) % 512)


def pax_sparse(version: str) -> bytes:
    content = b"".join(data for _, data in SPARSE_DATA)
    pairs = [(offset, len(data)) for offset, data in SPARSE_DATA]
    size = b"%d" % SPARSE_SIZE
    if version == "0.0":
        records = [(b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", b"2")]
        for offset, length in pairs:
            records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
        return pax(records) + member(b"f", content)
    if version == "0.1":
        sparse_map = b",".join(b"%d,%d" % pair for pair in pairs)
        records = [(b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", sparse_map)]
        return pax([*records, (b"GNU.sparse.name", b"f")]) + member(b"GNUSparseFile.0/f", content)
    sparse_map = b"2\n" + b"".join(b"%d\n%d\n" % pair for pair in pairs)
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
    records += [(b"GNU.sparse.name", b"f"), (b"GNU.sparse.realsize", size)]
    return pax(records) + member(b"GNUSparseFile.0/f", sparse_map + bytes(-len(sparse_map) % 512) + content)


@pytest.mark.parametrize("form", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files(tree: Path, put: Put, form: str) -> None:
    content = put(archive(gnu_sparse() if form == "gnu" else pax_sparse(form), member(b"after", b"1")))
    expected = bytearray(SPARSE_SIZE)
    for offset, data in SPARSE_DATA:
        expected[offset : offset + len(data)] = data
    assert (tree / "f").read_bytes() == expected
    assert (tree / "f").stat().st_blocks * 512 < 100_000
    assert content.tree_size == SPARSE_SIZE + 1
    assert sorted(path.name for path in tree.iterdir()) == ["after", "f"]
