"""A program that reads a forged repository and prints its peak memory after each step, in bytes.

usage: python -m tests.support.reader_memory ROOT KEY PATH...

Each path is read to its end; `check` checks the whole repository.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.peak_memory import peak_memory
from services.repository.native.check.checker import Checker
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.golden import GOLDEN_NAME

__all__ = ["main"]


def main(root: Path, key: bytes, steps: Sequence[str]) -> list[int]:
    """Do the steps and return the peak of memory after each one."""
    peaks = []
    storage = DirectoryStorage(root)
    with RepositoryReader(storage, name=GOLDEN_NAME, master_keys=[key]) as reader:
        revision = reader.newest(reader.head())
        for step in steps:
            if step == "check":
                report = Checker(storage, name=GOLDEN_NAME, master_keys=[key]).run()
                assert report.problems == (), report.problems[:3]
            else:
                entry = revision.stat(step.encode())
                assert entry is not None
                assert sum(map(len, revision.content(entry))) == entry.size
            peaks.append(peak_memory())
    return peaks


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes(), sys.argv[3:])))  # noqa: T201
