from collections.abc import Callable
from pathlib import Path

import pytest

from services.repository.native.check.checker import Checker
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN_NAME


@pytest.fixture
def forgery(tmp_path: Path) -> Forgery:
    """A copy of the golden repository that is yet to be damaged, and sealed."""
    return Forgery(tmp_path / "repository")


Defects = Callable[[Forgery], list[str]]


@pytest.fixture
def defects() -> Defects:
    """Say what is wrong with a forgery: place and defect."""

    def check(forgery: Forgery) -> list[str]:
        report = Checker(DirectoryStorage(forgery.root), name=GOLDEN_NAME, master_keys=[forged_key()]).run()
        assert all(problem.remedy for problem in report.problems)
        return [f"{problem.place}: {problem.what}" for problem in report.problems]

    return check
