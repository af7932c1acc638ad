import subprocess
import sys
from pathlib import Path

from harness.sandbox import Sandbox

_ROOT = Path(__file__).parents[2]

_MODULE = """
import os
from pathlib import Path

import pytest

from harness.sandbox import Sandbox

@pytest.mark.parametrize("number", range(3))
def test_it_is_in_a_sandbox(tmp_path, number):
    workspace = Sandbox.current().workspace
    assert tmp_path.is_relative_to(workspace)
    Path(os.environ["SEEN"], f"{Path(__file__).stem}-{number}").write_text(workspace.name)
"""


def test_each_worker_has_a_sandbox_and_whole_modules(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(_MODULE)
    program = _ROOT / "harness/sandboxed-python"
    spread = ["--tx", f"2*popen//python={program}", "--dist", "loadscope", "--max-worker-restart", "0"]
    plugin = ["-p", "tests.support.workers", f"--rootdir={tmp_path}"]
    command = [sys.executable, "-m", "pytest", *spread, *plugin, str(tmp_path)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(_ROOT), "SEEN": str(seen)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    workspaces = {path.name: path.read_text() for path in seen.iterdir()}
    assert len(workspaces) == 6
    of_one, of_two = ({workspaces[f"test_{name}-{number}"] for number in range(3)} for name in ("one", "two"))
    assert len(of_one) == len(of_two) == 1
    assert of_one != of_two
    assert Sandbox.current().workspace.name not in of_one | of_two
