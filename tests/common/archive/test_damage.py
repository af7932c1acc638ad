"""Archives that are cut anywhere; tests/soak changes them in other ways."""

import io
import os
import tempfile
from pathlib import Path
from typing import Final

import pytest
from pydantic import ByteSize

from harness.trees import differences, read_directory
from services.common.archive.errors import ArchiveError, MalformedArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.hostile.tar_changes import SAMPLE
from tests.support.tars import archive

BLOCK: Final = 512
LIMITS: Final = ArchiveLimits(tree_size=ByteSize(1 << 30), stream_size=ByteSize(1 << 30))


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
