"""The README, and the pages that belong to it, say what is so."""

import re
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TESTED = (_ROOT / "docs" / "tested.md").read_text()


def _declared() -> set[str]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    requirements = [
        *project["project"]["dependencies"],
        *(item for extra in project["project"]["optional-dependencies"].values() for item in extra),
        *(item for group in project["dependency-groups"].values() for item in group),
    ]
    return {re.split(r"[<>=~\[; ]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_every_dependency_has_its_reason() -> None:
    page = (_ROOT / "docs" / "dependencies.md").read_text()
    assert set(re.findall(r"^\| `([a-z0-9.-]+)` \| .+ \|$", page, re.MULTILINE)) == _declared()


def test_every_make_target_is_in_the_help() -> None:
    makefile = (_ROOT / "Makefile").read_text()
    phony, _steps = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    described = set(re.findall(r"@echo 'make ([\w-]+) ", makefile))
    assert described | {"help"} == set(phony.split())


def test_named_files_exist() -> None:
    names = re.findall(r"`((?:tests|harness|services|docs)/[\w./]+)`", _TESTED)
    assert names
    assert [name for name in names if not (_ROOT / name).exists()] == []
