# ruff: noqa: S608 - the statements are these tests' own
"""Memory depends neither on the size of files nor, much, on the number of entries."""

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.support.forgery import Forgery, forged_key

_MIB = 1 << 20


@pytest.fixture
def forgery(tmp_path: Path) -> Forgery:
    return Forgery(tmp_path / "repository")


def _peaks(forgery: Forgery, *steps: str) -> list[int]:
    forgery.seal()
    key = forgery.root / "key.pub"
    key.write_bytes(forged_key())
    command = [sys.executable, "-m", "tests.support.reader_memory", str(forgery.root), str(key), *steps]
    peaks: list[int] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=300).stdout)
    return peaks


def _store_zeros(forgery: Forgery, size: int, *, compressed: bool) -> str:
    """Store an object of zeros without ever holding it."""
    compressor = zlib.compressobj(1) if compressed else None
    hasher = hashlib.sha1(usedforsecurity=False)
    temporary = forgery.root / "data" / "zeros"
    with temporary.open("wb") as file:
        for _ in range(size // _MIB):
            piece = compressor.compress(bytes(_MIB)) if compressor else bytes(_MIB)
            hasher.update(piece)
            file.write(piece)
        if compressor:
            hasher.update(rest := compressor.flush())
            file.write(rest)
    name = hasher.hexdigest()
    forgery.object(name).parent.mkdir(exist_ok=True)
    temporary.rename(forgery.object(name))
    return name


@pytest.mark.parametrize("compressed", [True, False])
def test_a_large_file_takes_no_more_memory_than_a_small_one(forgery: Forgery, compressed: bool) -> None:  # noqa: FBT001
    size = 400 * _MIB
    name = _store_zeros(forgery, size, compressed=compressed)
    flags = 4 if compressed else 4 | 1 << 11
    forgery.edit(
        "",
        f"UPDATE catalog SET hash = x'{name}', size = {size}, flags = {flags} WHERE name = 'binary.bin'",
        f"UPDATE statistics SET value = value + {size - 3001} WHERE counter = 'self_file_size'",
    )
    small, large = _peaks(forgery, "/files/zeros.bin", "/files/binary.bin")
    assert large - small < 100 * _MIB


def test_a_catalog_of_many_entries_is_checked_in_little_memory(forgery: Forgery) -> None:
    number = 100_000
    forgery.edit(
        "",
        f"""INSERT INTO catalog
            WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {number})
            SELECT first('/files/' || n), second('/files/' || n), parent_1, parent_2, hardlinks, hash, size, mode,
                   mtime, mtimens, flags, n || '', symlink, uid, gid, xattr
            FROM many JOIN (SELECT * FROM catalog WHERE name = 'small.txt')""",
        f"UPDATE statistics SET value = value + {number} WHERE counter = 'self_regular'",
        f"UPDATE statistics SET value = value + {21 * number} WHERE counter = 'self_file_size'",
    )
    before, after = _peaks(forgery, "/files/zeros.bin", "check")
    assert after - before < 80 * _MIB
