"""The images of worker nodes hold what their program imports."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_GROUPS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["dependency-groups"]
_IMPORT = """
import importlib, json, sys
from importlib.abc import MetaPathFinder

hidden = frozenset(json.loads(sys.argv[2]))

class Hiding(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hiding())
for name in sys.argv[1].split():
    importlib.import_module(name)
"""
"""Imports modules where others are not installed."""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_what_they_need(names: list[str]) -> set[str]:
    found: set[str] = set()
    while names:
        requirement = Requirement(names.pop())
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and (name := _normal(requirement.name)) not in found:
            found.add(name)
            names += requires(name) or []
    return found


# Where commits go is loaded when the first one does.
@pytest.mark.parametrize(
    ("group", "modules"),
    [
        ("graphdriver", "services.graphdriver.managed.__main__ services.common.object_store.store"),
        ("snapshotter", "services.snapshotter.command services.common.object_store.store"),
    ],
)
def test_a_group_has_all_that_is_imported(group: str, modules: str) -> None:
    there = _with_what_they_need(list(_GROUPS[group])) | {"cvmfs-thin-images"}
    hidden = [top for top, names in packages_distributions().items() if there.isdisjoint(map(_normal, names))]
    assert "pytest" in hidden
    ended = subprocess.run(
        [sys.executable, "-c", _IMPORT, modules, json.dumps(hidden)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
