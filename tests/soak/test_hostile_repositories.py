"""Repositories that lie: whoever reads one is told so, soon, in little memory, and led nowhere."""

import hashlib
import time
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from harness.reliability.figures import Chapter, Trial
from services.repository.native.errors import BrokenRepositoryError, NativeError
from services.repository.native.reader.catalog import Catalog
from services.repository.native.reader.database import Database
from services.repository.native.reader.letters import (
    Certificate,
    Letter,
    Manifest,
    Whitelist,
    check_manifest_signature,
    check_whitelist_signature,
    master_key,
)
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource, Source
from services.repository.native.reader.trusted import read_letter
from services.repository.native.records import MANIFEST, WHITELIST
from services.repository.native.storage.directory import DirectoryStorage
from tests.hostile.answers import ANSWERS, answering
from tests.hostile.changes import changed, tried
from tests.hostile.databases import HOSTILE
from tests.hostile.memory import Memory
from tests.hostile.repositories import LIES
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN, GOLDEN_NAME
from tests.support.soak import Soak

_LARGE: Final = 256 << 10
"""Bytes from which on an input is too large to be changed often."""
_SECONDS: Final = 20.0
"""CPU time that no lie may take."""
_MEMORY: Final = 128 << 20
"""Bytes that no lie may take."""


def _read(source: Source) -> None:
    """Read all of a repository, as far as it can be read."""
    with RepositoryReader(source, name=GOLDEN_NAME, master_keys=[forged_key()]) as reader:
        head = reader.head()
        reader.tags(head)
        revision = reader.newest(head)
        for entry in revision.walk(hidden=True):
            if entry.is_file:
                for _ in revision.content(entry):
                    pass


def test_lies(soak: Soak, tmp_path: Path) -> None:
    wrong, longest, most = [], 0.0, 0
    forgery = Forgery(tmp_path / "repository")
    for lie in LIES:
        forgery.begin_again()
        lie.tell(forgery)
        began = time.process_time()
        told: Exception | None = None
        with Memory() as memory:
            try:
                _read(DirectoryStorage(forgery.root))
            except NativeError as error:
                told = error
        longest, most = max(longest, time.process_time() - began), max(most, memory.taken)
        if not isinstance(told, lie.error) or lie.says not in str(told):
            wrong.append(f"{lie.name}: {type(told).__name__}: {told}")
    assert wrong == []
    assert longest < _SECONDS
    assert most < _MEMORY
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="native repositories that lie",
            tried="reading all of one: wrong hashes, sizes, signatures, names; bombs, views, pages in circles",
            times=len(LIES),
            losses={"crashes": 0, "accepted that must be refused": len(wrong)},
            seen={"longest, CPU seconds": round(longest, 2), "most memory, MB": most >> 20},
        )
    )


def _catalogs() -> list[bytes]:
    """Return the catalogs of the golden repository, and the hostile ones that are small."""
    golden = [zlib.decompress(file.read_bytes()) for file in sorted(GOLDEN.glob("data/*/*C"))]
    hostile = [hostile.build() for hostile in HOSTILE]
    return golden + [content for content in hostile if len(content) < _LARGE]


def test_catalogs_changed_at_random(soak: Soak) -> None:
    read = 0

    def attempt(content: bytes) -> None:
        nonlocal read
        try:
            database = Database([content], name="data/12/34C")
            with closing(Catalog(database, path=b"")) as catalog:
                for entry in catalog.children(b""):
                    list(catalog.chunks(entry))
                list(catalog.all_nested())
                list(catalog.all_bind_mountpoints())
                catalog.counters()
                list(catalog.rows())
        except BrokenRepositoryError:
            return
        read += 1

    times = tried(soak, changed(_catalogs()), attempt, quick=60)
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="catalogs, changed at random",
            tried="bytes of SQLite files changed, cut and put together; all tables read",
            times=times,
            losses={"crashes": 0},
            seen={"read to their end": read, "refused": times - read},
        )
    )


def test_signed_texts_changed_at_random(soak: Soak) -> None:
    letters = [(GOLDEN / name).read_bytes() for name in (MANIFEST, WHITELIST)]
    certificates = [zlib.decompress(file.read_bytes()) for file in GOLDEN.glob("data/*/*X")]
    believed = 0

    def attempt(content: bytes) -> None:
        nonlocal believed
        body, separator, rest = content.partition(b"--\n")
        # With the right hash, so that what comes behind it is looked at as well.
        right = hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()
        for text in (content, body + separator + right + rest[40:]):
            for kind in (Manifest, Whitelist):
                try:
                    letter = Letter.parse(text, where=MANIFEST)
                    kind.parse(letter)
                    check_manifest_signature(letter, key)
                    check_whitelist_signature(letter, [key])
                    believed += 1
                except BrokenRepositoryError:
                    continue
        with suppress(BrokenRepositoryError):
            Certificate.parse(content, where="certificate")

    key = master_key(forged_key())
    times = tried(soak, changed([*letters * 3, *certificates]), attempt, quick=150)
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="manifests, whitelists and certificates, changed at random",
            tried="their bytes changed, cut and put together, with the right hash as well",
            times=times,
            losses={"crashes": 0, "accepted that must be refused": believed},
        )
    )


def test_answers_of_a_server_that_lies(soak: Soak) -> None:
    wrong = []
    with answering() as (url, answers):
        source = HttpSource(url, timeout=5.0)
        for name, answer in ANSWERS.items():
            answers.append(answer)
            with suppress(NativeError):
                read_letter(source, MANIFEST)
                wrong.append(name)
            with suppress(NativeError):
                size = source.size("data/12/34C")
                assert size is None or size >= 0
    assert wrong == []
    soak.record(
        Trial(
            chapter=Chapter.HOSTILE,
            subject="web servers of a repository",
            tried="answers with wrong lengths, redirects to nowhere and to files, broken chunks, no end",
            times=2 * len(ANSWERS),
            losses={"crashes": 0, "accepted that must be refused": len(wrong)},
        )
    )
