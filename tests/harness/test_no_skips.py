import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

_TEST = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("no gateway")

@pytest.mark.xfail(strict=True)
def test_expected_failure():
    assert False
"""

_MODULE = """
import pytest

pytest.skip("no client", allow_module_level=True)
"""


def _run(directory: Path, content: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_some.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.no_skips", f"--rootdir={directory}", str(directory)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(_ROOT), "CI": ci}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("content", "reason"), [(_TEST, "no gateway"), (_MODULE, "no client")])
def test_a_skip_fails_in_ci(tmp_path: Path, content: str, reason: str) -> None:
    ended = _run(tmp_path, content, ci="true")
    assert ended.returncode != 0
    assert f"skipped, which CI does not accept: Skipped: {reason}" in ended.stdout
    assert " skipped" not in ended.stdout.splitlines()[-1]


@pytest.mark.parametrize("ci", ["", "false"])
def test_a_skip_is_a_skip_elsewhere(tmp_path: Path, ci: str) -> None:
    ended = _run(tmp_path, _TEST, ci=ci)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed, 1 skipped, 1 xfailed" in ended.stdout
