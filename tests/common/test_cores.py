"""The cores that are counted: those that the process may run on, as far as its control groups give it their time."""

import os
from pathlib import Path

import pytest

from services.common.cores import usable_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("group", "limits", "cores"),
    [
        pytest.param("0::/", {"": "200000 100000"}, 2, id="a container sees its own group as the root"),
        pytest.param("0::/", {"": "150000 100000"}, 2, id="a part of a core is one"),
        pytest.param("0::/", {"": "5000 100000"}, 1, id="never none"),
        pytest.param("0::/", {"": "max 100000"}, 8, id="no limit"),
        pytest.param("0::/", {"": "6400000 100000"}, 8, id="more than there are"),
        pytest.param("0::/", {}, 8, id="the root of the machine has no such file"),
        pytest.param("0::/a.slice/b", {"a.slice": "300000 100000", "a.slice/b": "max 50000"}, 3, id="a group above"),
        pytest.param("0::/a.slice/b", {"a.slice": "300000 100000", "a.slice/b": "100000 50000"}, 2, id="the least"),
        pytest.param("0::/../other", {"": "100000 100000"}, 1, id="a group beside the one that is seen as the root"),
        pytest.param("4:memory:/\n1:cpu:/a\n0::/a", {"a": "100000 100000"}, 1, id="both versions are mounted"),
        pytest.param("4:memory:/\n1:cpu:/a", {"a": "100000 100000"}, 8, id="version 1"),
    ],
)
def test_the_limit_of_a_control_group_counts(tmp_path: Path, group: str, limits: dict[str, str], cores: int) -> None:
    cgroups = tmp_path / "cgroup"
    for name, limit in limits.items():
        (cgroups / name).mkdir(parents=True, exist_ok=True)
        (cgroups / name / "cpu.max").write_text(f"{limit}\n")
    (tmp_path / "membership").write_text(f"{group}\n")
    assert usable_cores(cgroups=cgroups, membership=tmp_path / "membership") == cores


def test_a_kernel_without_control_groups_sets_no_limit(tmp_path: Path) -> None:
    assert usable_cores(cgroups=tmp_path, membership=tmp_path / "missing") == 8


def test_the_files_of_this_machine_are_understood() -> None:
    assert 1 <= usable_cores() <= 8
