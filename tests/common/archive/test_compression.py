"""The stored form: what is written, what is read, and what is refused."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ByteSize

from services.common.archive.compression import ArchiveReader, open_archive, write_archive
from services.common.archive.errors import (
    ArchiveLimitError,
    ArchiveReadError,
    ArchiveWriteError,
    CompressionError,
    UnsupportedTreeError,
)
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import MediaType
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.support.tars import archive, member

TAR = archive(*[member(b"f%d" % number, b"content %d" % number * 300) for number in range(40)])

FORMS: dict[str, tuple[Callable[[bytes], bytes], MediaType]] = {
    "plain": (bytes, MediaType.TAR),
    "gzip": (gzip.compress, MediaType.TAR_GZIP),
    "gzip members": (lambda data: gzip.compress(data[:7000]) + gzip.compress(data[7000:]), MediaType.TAR_GZIP),
    "empty gzip member": (lambda data: gzip.compress(b"") + gzip.compress(data), MediaType.TAR_GZIP),
    "zstd": (zstd.compress, MediaType.TAR_ZSTD),
    "zstd frames": (lambda data: zstd.compress(data[:7000]) + zstd.compress(data[7000:]), MediaType.TAR_ZSTD),
    "zstd skippable first": (lambda data: skippable(b"x" * 50) + zstd.compress(data), MediaType.TAR_ZSTD),
    "zstd skippable last": (lambda data: zstd.compress(data) + skippable(b"toc"), MediaType.TAR_ZSTD),
}


def skippable(content: bytes) -> bytes:
    """Return a frame that decoders pass over, as zstd:chunked and pzstd have them (RFC 8878, 3.1.2)."""
    return b"\x50\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def drain(reader: ArchiveReader, size: int = 1 << 16) -> bytes:
    buffer = memoryview(bytearray(size))
    parts = []
    while count := reader.readinto(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


class Pieces(io.BytesIO):
    """A source that gives a few bytes at a time."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return super().readinto(buffer[: self._size])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
def test_reads_every_form(form: str, size: int) -> None:
    compress, media_type = FORMS[form]
    stored = compress(TAR)
    reader = open_archive(Pieces(stored, size), limits=ArchiveLimits())
    assert drain(reader) == TAR
    identity = reader.identity()
    assert identity.media_type is media_type
    assert identity.digest == hashlib.sha256(stored).hexdigest()
    assert identity.diff_id == hashlib.sha256(TAR).hexdigest()
    assert (identity.size, identity.uncompressed_size) == (len(stored), len(TAR))


@given(st.lists(st.binary(max_size=5000), max_size=5), st.integers(1, 7000), st.sampled_from(["gzip", "zstd"]))
def test_members_may_end_anywhere(parts: list[bytes], size: int, form: str) -> None:
    compress = FORMS[form][0]
    stored = compress(b"") + b"".join(map(compress, parts))
    assert drain(open_archive(Pieces(stored, size), limits=ArchiveLimits()), size) == b"".join(parts)


def test_knows_nothing_before_the_end() -> None:
    reader = open_archive(io.BytesIO(gzip.compress(TAR)), limits=ArchiveLimits())
    reader.readinto(memoryview(bytearray(10)))
    with pytest.raises(RuntimeError):
        reader.identity()


@pytest.mark.parametrize("form", ["gzip", "gzip members", "zstd", "zstd frames", "zstd skippable last"])
def test_a_cut_stream_is_an_error_wherever_it_is_cut(form: str) -> None:
    stored = FORMS[form][0](TAR)
    ends = {len(FORMS[form.split(maxsplit=1)[0]][0](TAR[:7000])), len(zstd.compress(TAR))}
    for end in range(4, len(stored), 3):
        if end in ends:
            continue
        with pytest.raises(CompressionError, match=r"cut short|followed by something else"):
            drain(open_archive(io.BytesIO(stored[:end]), limits=ArchiveLimits()))


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.parametrize("rest", [b"x", b"\0", bytes(100), b"garbage" * 1000], ids=len)
def test_something_behind_the_stream_is_an_error(form: str, rest: bytes) -> None:
    with pytest.raises(CompressionError, match=f"the {form} stream is followed by something else"):
        drain(open_archive(io.BytesIO(FORMS[form][0](TAR) + rest), limits=ArchiveLimits()))


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_corrupt_stream_is_an_error(form: str) -> None:
    options: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}
    stored = bytearray(gzip.compress(TAR) if form == "gzip" else zstd.compress(TAR, options=options))
    for position in range(12, len(stored), 7):
        damaged = bytearray(stored)
        damaged[position] ^= 0x55
        with pytest.raises((CompressionError, ArchiveLimitError)):
            drain(open_archive(io.BytesIO(damaged), limits=ArchiveLimits()))


@pytest.mark.parametrize(
    ("name", "stored"),
    [("xz", lzma.compress(TAR)), ("bzip2", bz2.compress(TAR)), ("lz4", b"\x04\x22\x4d\x18" + bytes(9))],
)
def test_other_compressions_are_named(name: str, stored: bytes) -> None:
    with pytest.raises(CompressionError, match=f"compressed with {name}; layers are gzip, zstd or plain"):
        open_archive(io.BytesIO(stored), limits=ArchiveLimits())


def test_nothing_at_all() -> None:
    reader = open_archive(io.BytesIO(), limits=ArchiveLimits())
    assert drain(reader) == b""
    assert reader.identity().size == 0


def test_a_source_that_fails() -> None:
    with (
        open("/proc/self/mem", "rb", buffering=0) as source,
        pytest.raises(ArchiveReadError, match=r"cannot be read on after 0 bytes: .*Input/output error"),
    ):
        open_archive(source, limits=ArchiveLimits())


def gzip_bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join([*(compressor.compress(zeros) for _ in range(size >> 20)), compressor.flush()])


@pytest.mark.parametrize("compress", [gzip_bomb, lambda size: zstd.compress(bytes(size))], ids=["gzip", "zstd"])
def test_bombs_are_stopped_while_they_stream(compress: Callable[[int], bytes]) -> None:
    stored = compress(64 << 20)
    limits = ArchiveLimits(stream_size=ByteSize(8 << 20))
    with pytest.raises(ArchiveLimitError, match="larger than 8388608 bytes \\(limit stream_size\\)"):
        drain(open_archive(io.BytesIO(stored), limits=limits))
    limits = ArchiveLimits(ratio=100, ratio_free_size=ByteSize(1 << 20))
    with pytest.raises(ArchiveLimitError, match="more than 100 times as many \\(limit ratio\\)"):
        drain(open_archive(io.BytesIO(stored), limits=limits))
    # Up to a size any ratio passes: people do have files of zeros.
    assert survey(open_archive(io.BytesIO(stored), limits=ArchiveLimits()), limits=ArchiveLimits()).entries == 0


def test_a_window_that_takes_too_much_memory() -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    stored = compressor.compress(TAR) + compressor.flush()
    with pytest.raises(ArchiveLimitError, match="needs a larger window than the limit zstd_window_log allows"):
        drain(open_archive(io.BytesIO(stored), limits=ArchiveLimits()))
    assert drain(open_archive(io.BytesIO(stored), limits=ArchiveLimits(zstd_window_log=27))) == TAR


@pytest.fixture
def layer(tree: Path) -> Path:
    """A tree of some 20 MB, more than the threads' pieces."""
    for number in range(6):
        (tree / f"f{number}").write_bytes(os.urandom(1 << 20) + b"compressible" * 200_000)
    return tree


def test_writes_what_it_says(layer: Path, tmp_path: Path) -> None:
    written = write_archive(layer, tmp_path / "layer.tar.zst")
    stored = written.path.read_bytes()
    plain = zstd.decompress(stored)
    assert written.media_type is MediaType.TAR_ZSTD
    assert written.digest == hashlib.sha256(stored).hexdigest()
    assert written.diff_id == hashlib.sha256(plain).hexdigest()
    assert (written.size, written.uncompressed_size) == (len(stored), len(plain))
    again = tmp_path / "again"
    again.mkdir()
    reader = open_archive(io.BytesIO(stored), limits=ArchiveLimits())
    unpack(reader, again, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert reader.identity().digest == written.digest
    assert (again / "f3").read_bytes() == (layer / "f3").read_bytes()


def test_is_the_same_for_any_number_of_cores(layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for cores in (1, 2, 3, 4, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        digests.add(write_archive(layer, tmp_path / f"{cores}").digest)
    assert len(digests) == 1


def test_another_program_reads_it(layer: Path, tmp_path: Path) -> None:
    written = write_archive(layer, tmp_path / "layer.tar.zst")
    listed = subprocess.run(["tar", "--zstd", "-tf", written.path], check=True, capture_output=True, text=True)
    assert listed.stdout.split() == [f"f{number}" for number in range(6)]


def test_leaves_nothing_when_it_fails(layer: Path, tmp_path: Path) -> None:
    (layer / "z").mkdir()
    (layer / "z/.wh.x").write_bytes(b"")
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(UnsupportedTreeError):
        write_archive(layer, spool / "layer")
    assert list(spool.iterdir()) == []
    with pytest.raises(ArchiveWriteError, match=r"none/layer cannot be written: No such file"):
        write_archive(layer, tmp_path / "none/layer")


@pytest.mark.parametrize("limit", ["stream_size", "ratio"])
def test_writes_nothing_that_would_not_be_read(tree: Path, tmp_path: Path, limit: str) -> None:
    (tree / "zeros").touch()
    os.truncate(tree / "zeros", 20 << 20)
    destination = tmp_path / "layer"
    written = write_archive(tree, destination)
    ratio = written.uncompressed_size // written.size
    values = {"stream_size": written.uncompressed_size, "ratio": ratio + 1}
    free = (1 << 20) if limit == "ratio" else (1 << 30)
    narrow = ArchiveLimits.model_validate({limit: values[limit] - 1, "ratio_free_size": free})
    for work in (
        lambda: drain(open_archive(io.BytesIO(destination.read_bytes()), limits=narrow)),
        lambda: write_archive(tree, tmp_path / "refused", limits=narrow),
    ):
        with pytest.raises(ArchiveLimitError, match=f"limit {limit}"):
            work()
    assert not list(tmp_path.glob("refused*"))
    enough = ArchiveLimits.model_validate({limit: values[limit], "ratio_free_size": free})
    assert write_archive(tree, tmp_path / "again", limits=enough).digest == written.digest


def test_replaces_what_a_killed_attempt_left(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "layer.partial").write_bytes(b"half" * (10 << 20))
    (tmp_path / "layer").write_bytes(b"old")
    written = write_archive(layer, tmp_path / "layer")
    assert written.path.stat().st_size == written.size
    assert not (tmp_path / "layer.partial").exists()


def test_memory_does_not_grow_with_the_layer(tree: Path, tmp_path: Path) -> None:
    """A process that writes and reads a layer of 300 MB of barely compressible data stays small."""
    with (tree / "large").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1 << 19) + b"x" * (1 << 19))
    program = """
import pathlib, sys
from harness.peak_memory import peak_memory
from services.common.archive.compression import open_archive, write_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.survey import survey
written = write_archive(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
with open(written.path, "rb", buffering=0) as file:
    survey(open_archive(file, limits=ArchiveLimits()), limits=ArchiveLimits())
print(peak_memory())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tree, tmp_path / "layer"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 150 << 20
