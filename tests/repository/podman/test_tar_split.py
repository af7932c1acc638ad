"""What podman makes an archive again with: together with the files of the layer, it is the archive, byte for byte."""

import gzip
import io
import json
import tarfile
from base64 import b64decode
from pathlib import Path
from typing import Final

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import ListedDeletions
from services.common.archive.unpack import unpack
from services.common.digest import Digest
from services.common.sidecar import LayerSidecar
from services.repository.podman import tar_split
from services.repository.podman.tar_split import TarSplit

_ANY: Final = Digest("0" * 64)
_SIDECAR: Final = LayerSidecar(
    digest=_ANY, diff_id=_ANY, archive_size=0, uncompressed_size=0, tree_size=0, entries=0, notes=("a note",)
)
_ISO: Final = 0xD800000000000000
"""The polynomial, bits reversed (Go, `hash/crc64`)."""


def _split(archive: bytes, tree: Path) -> tuple[bytes, LayerSidecar]:
    """Unpack an archive."""
    tree.mkdir()
    sink = io.BytesIO()
    witness = TarSplit(sink)
    unpack(io.BytesIO(archive), tree, deletions=ListedDeletions(), limits=ArchiveLimits(), witness=witness)
    sidecar = witness.finish(_SIDECAR)
    return sink.getvalue(), sidecar


def _assembled(split: bytes, tree: Path) -> bytes:
    """Do what podman does."""
    parts, names = [], set()
    for position, line in enumerate(gzip.decompress(split).splitlines()):
        entry = json.loads(line)
        assert entry["position"] == position
        payload = b64decode(entry["payload"])
        if entry["type"] == 2:
            parts.append(payload)
            continue
        name = entry["name"].encode() if "name" in entry else b64decode(entry["name_raw"])
        assert name not in names, "podman refuses a name that comes twice"
        names.add(name)
        content = Path(f"{tree}/{name.decode(errors='surrogateescape')}").read_bytes()
        assert (len(content), _crc64(content)) == (entry["size"], payload)
        parts.append(content)
    return b"".join(parts)


def _divided(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_ISO if value & 1 else 0)
    return value


_TABLE: Final = [_divided(byte) for byte in range(256)]


def _crc64(content: bytes) -> bytes:
    value = (1 << 64) - 1
    for byte in content:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return (~value & (1 << 64) - 1).to_bytes(8, "big")


def _entry(name: str, kind: bytes = tarfile.REGTYPE, *, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mtime = kind, size, target, 1_700_000_000
    return info


def _archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def _varied(form: int) -> bytes:
    contents = {
        "./plain": b"plain",
        "block": b"b" * 512,
        "empty": b"",
        "directory/" + "long" * 30: b"long name",
        'quoted "\\" \u00e9 \U0001f433': b"other characters",
        "large": b"large" * 100_000,
    }
    return _archive(
        (_entry("directory", tarfile.DIRTYPE), b""),
        *((_entry(name, size=len(content)), content) for name, content in contents.items()),
        (_entry("directory/.wh.gone"), b""),
        (_entry("symlink", tarfile.SYMTYPE, target="plain"), b""),
        (_entry("hardlink", tarfile.LNKTYPE, target="block"), b""),
        form=form,
    )


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(_varied(tarfile.PAX_FORMAT), id="pax"),
        pytest.param(_varied(tarfile.GNU_FORMAT), id="gnu"),
        pytest.param(_varied(tarfile.PAX_FORMAT) + bytes(100_000), id="long-end"),
        pytest.param(_archive((_entry("name", size=3), b"end"))[:1024], id="no-end"),
        pytest.param(_archive((_entry("\udcff", size=3), b"raw"), form=tarfile.GNU_FORMAT), id="no-text"),
        pytest.param(_archive(), id="nothing"),
        pytest.param(b"", id="empty"),
    ],
)
def test_an_archive_is_made_again_byte_for_byte(archive: bytes, tmp_path: Path) -> None:
    split, sidecar = _split(archive, tmp_path / "tree")
    assert (sidecar.tar_split, sidecar.notes) == (True, ("a note",))
    assert _assembled(split, tmp_path / "tree") == archive
    # It depends on the archive only.
    assert _split(archive, tmp_path / "again")[0] == split


_HOLE: Final = tarfile.TarInfo("sparse")
_HOLE.pax_headers = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "sparse",
    "GNU.sparse.realsize": "1000000",
}
_HOLE.size = 1024


@pytest.mark.parametrize(
    ("archive", "why"),
    [
        (_archive((_HOLE, b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512)), "a sparse file"),
        (_archive((_entry("one", size=3), b"old"), (_entry("one", size=5), b"newer")), "two entries of the same name"),
        (_archive((_entry("one", size=3), b"old"), (_entry("one", tarfile.DIRTYPE), b"")), "two entries"),
        (_archive((_entry(".wh.one", size=3), b"odd")), "a deletion that has content"),
        (_archive((_entry("one", size=2_000_000), bytes(2_000_000))) + bytes(1 << 20), "more than 1 MiB"),
    ],
)
def test_there_is_none_of_an_archive_that_the_files_are_not_all_of(
    archive: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_split, "_MOST", 1 << 20)
    _, sidecar = _split(archive, tmp_path / "tree")
    assert not sidecar.tar_split
    assert sidecar.notes[0] == "a note"
    assert sidecar.notes[1].startswith("podman can neither save nor push what has this layer: its archive has " + why)
