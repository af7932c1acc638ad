"""Archives that are cut, changed or put together wrongly: an ArchiveError or a layer comes of it, nothing else."""

import io
import os
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ByteSize

from harness.trees import differences, read_directory
from services.common.archive.compression import open_archive
from services.common.archive.errors import ArchiveError, MalformedArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.support.layers import Directory, layers, members_of
from tests.support.tars import END, GNU_MAGIC, archive, gnu_long, member, pax

BLOCK: Final = 512
LIMITS: Final = ArchiveLimits(tree_size=ByteSize(1 << 30), stream_size=ByteSize(1 << 30))
fuzz = settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

SAMPLE: Final = [
    member(b"d/", b"", b"5", mode=0o755),
    pax({b"path": b"d/" + b"p" * 120, b"mtime": b"1.5", b"SCHILY.xattr.user.a": b"1"}) + member(b"f", b"x" * 700),
    gnu_long(b"d/" + b"g" * 120) + member(b"f", b"y", magic=GNU_MAGIC),
    gnu_long(b"t" * 120, b"K") + member(b"d/s", typeflag=b"2", magic=GNU_MAGIC),
    member(b"d/l", typeflag=b"1", link=b"d/f"),
    member(b"d/f", b"z" * 1024),
    member(b"d/c", typeflag=b"3", major=1, minor=3),
    member(b"d/.wh.gone"),
    member(b"o/.wh..wh..opq"),
    pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"9000"})
    + member(b"sparse", b"1\n4096\n512\n".ljust(512, b"\0") + b"s" * 512),
]


def outcome(content: bytes) -> LayerContent | ArchiveError:
    """Unpack and survey an archive next to a canary; both must come to the same end."""
    with tempfile.TemporaryDirectory() as directory:
        private = Path(directory)
        (private / "canary").mkdir()
        (private / "canary/victim").write_bytes(b"untouched")
        (private / "tree").mkdir()
        before = read_directory(private / "canary")
        surveyed, unpacked = ends(content, private / "tree")
        assert differences(before, read_directory(private / "canary")) == []
        assert sorted(os.listdir(private)) == ["canary", "tree"]
    if isinstance(surveyed, ArchiveError) or isinstance(unpacked, ArchiveError):
        # Only the kernel judges the value of a capability, and only a file system how many attributes it holds.
        assert type(surveyed) is type(unpacked) or "'security.capability'" in str(unpacked) or "space" in str(unpacked)
    else:
        assert surveyed == unpacked
    return unpacked


def ends(content: bytes, tree: Path) -> tuple[LayerContent | ArchiveError, LayerContent | ArchiveError]:
    surveyed: LayerContent | ArchiveError
    unpacked: LayerContent | ArchiveError
    try:
        surveyed = survey(io.BytesIO(content), limits=LIMITS)
    except ArchiveError as error:
        surveyed = error
    try:
        unpacked = unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=LIMITS)
    except ArchiveError as error:
        unpacked = error
    return surveyed, unpacked


def with_right_checksum(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 0x20) + block[156:]


def is_header(block: bytes) -> bool:
    return block[257:262] == b"ustar"


def test_a_sample_is_whole() -> None:
    whole = outcome(archive(*SAMPLE))
    assert isinstance(whole, LayerContent)
    assert (whole.entries, whole.whiteouts, whole.opaque) == (len(SAMPLE), (b"d/gone",), (b"o",))


def test_a_cut_at_every_block_is_an_error_but_between_entries() -> None:
    content = b"".join(SAMPLE)
    # The fifth entry is a hard link to what only the sixth brings.
    between = {sum(map(len, SAMPLE[:count])) for count in range(len(SAMPLE) + 1)} - {sum(map(len, SAMPLE[:5]))}
    for end in range(0, len(content) + 1, BLOCK):
        result = outcome(content[:end])
        assert isinstance(result, LayerContent) == (end in between), end


@pytest.mark.parametrize("offset", [1, 100, 511])
def test_a_cut_inside_a_block_is_an_error(offset: int) -> None:
    content = b"".join(SAMPLE)
    for end in range(offset, len(content), BLOCK):
        result = outcome(content[:end])
        assert isinstance(result, MalformedArchiveError), end


_changes = st.lists(
    st.tuples(st.integers(0, 1 << 30), st.one_of(st.integers(0, 255), st.sampled_from(b"\0 /.0179\xff\x80xgLK"))),
    min_size=1,
    max_size=6,
)


@given(_changes, st.booleans())
@fuzz
def test_changed_bytes(changes: list[tuple[int, int]], repair: bool) -> None:  # noqa: FBT001 - drawn
    content = bytearray(archive(*SAMPLE))
    for position, value in changes:
        content[position % len(content)] = value
    blocks = [bytes(content[start : start + BLOCK]) for start in range(0, len(content), BLOCK)]
    if repair:
        blocks = [with_right_checksum(block) if is_header(block) else block for block in blocks]
    outcome(b"".join(blocks))


_fields = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "typeflag": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "prefix": (345, 155),
}
_values = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            *(b"../canary/victim", b"/", b"", b"d", b"d/f", b"o", b".wh.d", b"\x80\0\0\0\0\0\0\x05", b"\xff" * 12),
            *(b"00000001000", b"77777777777", b"0", b"1", b"2", b"5", b"S", b"x", b"g", b"L", b"ustar  \0"),
        ]
    ),
)


@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from(sorted(_fields)), _values), min_size=1, max_size=3))
@fuzz
def test_changed_fields(changes: list[tuple[int, str, bytes]]) -> None:
    content = archive(*SAMPLE)
    blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    headers = [number for number, block in enumerate(blocks) if is_header(block)]
    for number, name, value in changes:
        index = headers[number % len(headers)]
        start, width = _fields[name]
        block = blocks[index]
        blocks[index] = with_right_checksum(block[:start] + value[:width].ljust(width, b"\0") + block[start + width :])
    outcome(b"".join(blocks))


_records = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"path",
                b"linkpath",
                b"size",
                b"uid",
                b"mtime",
                b"SCHILY.xattr.user.a",
                b"SCHILY.xattr.security.capability",
            ]
            + [
                b"GNU.sparse." + key
                for key in (b"major", b"minor", b"size", b"realsize", b"map", b"name", b"numblocks")
            ]
            + [b"GNU.sparse.offset", b"GNU.sparse.numbytes"]
        ),
        st.one_of(
            st.binary(max_size=20), st.integers(-5, 1 << 70).map(b"%d".__mod__), st.sampled_from([b"0,1", b"d/f"])
        ),
    ),
    max_size=6,
)


@given(_records, st.sampled_from([b"x", b"g"]), st.sampled_from([b"0", b"1", b"2", b"5", b"S"]))
@fuzz
def test_any_records(records: list[tuple[bytes, bytes]], header: bytes, typeflag: bytes) -> None:
    outcome(archive(member(b"d/f", b"1"), pax(records, header), member(b"e", b"data", typeflag, link=b"d/f")))


@given(layers(deletions=True), layers(deletions=True), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_entries_in_any_order(first: Directory, second: Directory, random: object) -> None:
    entries = members_of(first) + members_of(second)
    random.shuffle(entries)  # type: ignore[attr-defined]
    outcome(b"".join(entries) + END)


@given(st.binary(max_size=3000))
@fuzz
def test_any_bytes(content: bytes) -> None:
    try:
        survey(open_archive(io.BytesIO(content), limits=LIMITS), limits=LIMITS)
    except ArchiveError as error:
        told = str(error)
    else:
        told = "nothing"
    assert told.isprintable()
