"""Archives that want to do harm: a layer or an error of the module's own comes of them, and nothing outside."""

import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hypothesis import strategies as st
from pydantic import ByteSize

from harness.reliability.figures import Chapter, Trial
from harness.trees import differences, read_directory
from services.common.archive.compression import open_archive
from services.common.archive.errors import ArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import DeletionEncoding, ListedDeletions, OverlayDeletions
from services.common.archive.policy import LocalPolicy
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack, unpack_by_policy
from tests.hostile.archives import CASES
from tests.hostile.changes import changed, tried
from tests.hostile.memory import Memory
from tests.hostile.stored import REFUSED, TAKEN
from tests.hostile.tar_changes import SAMPLE, fields_changed, in_any_order, records_made_up, repaired
from tests.support.policies import DIFFERENCES, described
from tests.support.soak import Soak
from tests.support.tars import archive

_LIMITS: Final = ArchiveLimits(tree_size=ByteSize(1 << 30), stream_size=ByteSize(1 << 30))
"""Of what is changed at random: a file system of the tests cannot hold more."""
_SECONDS: Final = 5.0
"""CPU time that no archive of the corpus may take."""
_MEMORY: Final = 64 << 20
"""Bytes that no archive of the corpus may take, beyond what the test itself has."""
_LARGE: Final = 64 << 10
"""Bytes from which on an input is too large to be changed often."""
_CANARY: Final = b"/canary"


@contextmanager
def _guarded() -> Iterator[tuple[Path, bytes]]:
    """Make a tree next to a canary, give both, and see afterwards that nothing but the tree has changed."""
    with tempfile.TemporaryDirectory() as directory:
        private = Path(directory)
        tree, canary = private / "tree", private / "canary"
        tree.mkdir()
        canary.mkdir(mode=0o751)
        (canary / "victim").write_bytes(b"untouched")
        os.utime(canary / "victim", (5, 5))
        os.utime(canary, (6, 6))
        before = read_directory(canary)
        yield tree, os.fsencode(canary)
        assert differences(before, read_directory(canary)) == [], "written outside"
        assert sorted(os.listdir(private)) == ["canary", "tree"], "written outside"


def _told(
    content: bytes, limits: ArchiveLimits, tree: Path, deletions: DeletionEncoding
) -> LayerContent | ArchiveError:
    """Unpack an archive as the publisher does; whatever else is raised is a defect."""
    began = time.process_time()
    try:
        return unpack(open_archive(io.BytesIO(content), limits=limits), tree, deletions=deletions, limits=limits)
    except ArchiveError as error:
        text = str(error)
        assert text
        assert text.isascii()
        assert text.isprintable()
        return error
    finally:
        assert time.process_time() - began < _SECONDS


def _surveyed(content: bytes, limits: ArchiveLimits) -> LayerContent | ArchiveError:
    try:
        return survey(open_archive(io.BytesIO(content), limits=limits), limits=limits)
    except ArchiveError as error:
        return error


def _local(content: bytes, limits: ArchiveLimits, tree: Path) -> LayerContent | ArchiveError:
    """Unpack an archive as a node does."""
    try:
        return unpack_by_policy(io.BytesIO(content), tree, deletions=OverlayDeletions(), policy=LocalPolicy(limits))
    except ArchiveError as error:
        return error


def _agree(surveyed: LayerContent | ArchiveError, unpacked: LayerContent | ArchiveError) -> bool:
    """Tell whether both came to the same end."""
    if isinstance(surveyed, ArchiveError) or isinstance(unpacked, ArchiveError):
        # Only the kernel judges the value of a capability, and only a file system how many attributes it holds.
        return type(surveyed) is type(unpacked) or "'security.capability'" in str(unpacked) or "space" in str(unpacked)
    return surveyed == unpacked


def test_the_corpus(soak: Soak) -> None:
    refused = [*CASES, *REFUSED]
    assert len({case.name for case in refused}) == len(refused) >= 100
    wrong = []
    longest, most = 0.0, 0
    for case in refused:
        with _guarded() as (tree, canary):
            content = case.build(canary)
            began = time.process_time()
            with Memory() as memory:
                told = _told(content, case.limits, tree, OverlayDeletions())
            longest, most = max(longest, time.process_time() - began), max(most, memory.taken)
            with _guarded() as (other, _):
                listed = _told(content, case.limits, other, ListedDeletions())
            ends = [_agree(_surveyed(content, case.limits), told), type(listed) is case.error, type(told) is case.error]
            if not all(ends) or case.says not in str(told):
                wrong.append(f"{case.name}: {type(told).__name__}: {told}")
    assert wrong == []
    assert most < _MEMORY
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="archives that are published",
            tried="a corpus of archives that escape, lie about their sizes, are cut short, or grow without bound",
            times=len(refused),
            losses={"crashes": 0, "written outside": 0, "accepted that must be refused": len(wrong)},
            seen={"longest, CPU seconds": round(longest, 2), "most memory, MB": most >> 20},
        )
    )


def test_the_corpus_on_a_node(soak: Soak) -> None:
    wrong = []
    for case in CASES:
        with _guarded() as (tree, canary):
            told = _local(case.build(canary), case.limits, tree)
            says = case.local
            if isinstance(told, ArchiveError) != (says is not None) or (says or "") not in str(told):
                wrong.append(f"{case.name}: {type(told).__name__}: {told}")
    assert wrong == []
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="archives that are local to a node, taken as overlay2 takes them",
            tried="a corpus of archives that escape, lie about their sizes, are cut short, or grow without bound",
            times=len(CASES),
            losses={"crashes": 0, "written outside": 0, "accepted that must be refused": len(wrong)},
            seen={"refused": sum(case.local is not None for case in CASES)},
        )
    )


def test_what_is_odd_and_all_the_same_a_layer(soak: Soak) -> None:
    wrong = []
    for case in TAKEN:
        with _guarded() as (tree, _):
            content = _told(case.build(), ArchiveLimits(), tree, OverlayDeletions())
            found = described(tree)
            if isinstance(content, ArchiveError):
                wrong.append(f"{case.name}: {content}")
            elif (
                found != case.tree or case.note not in "".join(content.notes) or bool(content.notes) != bool(case.note)
            ):
                wrong.append(f"{case.name}: {found}, {content.notes}")
    assert wrong == []
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="archives that are odd, and layers all the same",
            tried="unpacking them, and comparing what is there with what must be",
            times=len(TAKEN),
            losses={"crashes": 0, "written outside": 0, "other results": len(wrong)},
        )
    )


def test_changed_at_random(soak: Soak) -> None:
    plain = [case.build(_CANARY) for case in CASES] + [difference.archive for difference in DIFFERENCES]
    plain += [archive(*SAMPLE)] * 20
    small = [content for content in plain if len(content) < _LARGE]
    taken = 0

    def attempt(content: bytes) -> None:
        nonlocal taken
        with _guarded() as (tree, _):
            told = _told(content, _LIMITS, tree, OverlayDeletions())
            assert _agree(_surveyed(content, _LIMITS), told)
            taken += isinstance(told, LayerContent)
        with _guarded() as (tree, _):
            _local(content, _LIMITS, tree)

    inputs = st.one_of(
        changed(small), changed(small).map(repaired), fields_changed(), records_made_up(), in_any_order()
    )
    times = tried(soak, inputs, attempt, quick=100)
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="archives, changed at random",
            tried="bytes, fields and records of the corpus changed, cut and put together; unpacked by both policies",
            times=times,
            losses={"crashes": 0, "written outside": 0, "other ends in survey and unpacking": 0},
            seen={"taken": taken, "refused": times - taken},
        )
    )


def test_compressed_forms_changed_at_random(soak: Soak) -> None:
    built = [case.build(_CANARY) for case in REFUSED if case.limits == ArchiveLimits()] + [
        case.build() for case in TAKEN
    ]
    small = [content for content in built if len(content) < _LARGE]
    taken = 0

    def attempt(content: bytes) -> None:
        nonlocal taken
        taken += isinstance(_surveyed(content, _LIMITS), LayerContent)

    times = tried(soak, changed(small), attempt, quick=200)
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="compressed archives, changed at random",
            tried="bytes of gzip and zstd streams changed, cut and put together",
            times=times,
            losses={"crashes": 0},
            seen={"taken": taken, "refused": times - taken},
        )
    )
