import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.sandbox import Sandbox
from tests.support.workers import pytest_collection_modifyitems

_ROOT = Path(__file__).parents[2]

_MODULE = """
import os
import time
from pathlib import Path

import pytest

from harness.sandbox import Sandbox

@pytest.mark.parametrize("number", range(3))
def test_it_is_in_a_sandbox(tmp_path, number):
    workspace = Sandbox.current().workspace
    assert tmp_path.is_relative_to(workspace)
    Path(os.environ["SEEN"], f"{Path(__file__).stem}-{number}").write_text(f"{workspace.name} {time.monotonic_ns()}")
"""


def test_each_worker_has_a_sandbox_and_whole_modules(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    for name in ("one", "two"):
        (tmp_path / f"test_{name}.py").write_text(_MODULE)
    (tmp_path / "tests" / "e2e").mkdir(parents=True)
    for name in ("compose", "managed_plugin"):
        (tmp_path / "tests" / "e2e" / f"test_{name}.py").write_text(_MODULE)
    program = _ROOT / "harness/sandboxed-python"
    spread = ["--tx", f"2*popen//python={program}", "--dist", "loadscope", "--no-loadscope-reorder"]
    plugin = ["-p", "tests.support.workers", f"--rootdir={tmp_path}"]
    command = [sys.executable, "-m", "pytest", *spread, *plugin, str(tmp_path)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(_ROOT), "SEEN": str(seen)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    reports = {path.name: path.read_text().split() for path in seen.iterdir()}
    workspaces = {name: workspace for name, (workspace, _) in reports.items()}
    names = ("one", "two", "compose", "managed_plugin")
    workers = {name: {workspaces[f"test_{name}-{number}"] for number in range(3)} for name in names}
    assert {len(used) for used in workers.values()} == {1}
    assert len(set(workspaces.values())) == 2
    assert Sandbox.current().workspace.name not in workspaces.values()
    # What shares something that takes minutes to make goes to one worker, which does it first.
    assert workers["compose"] == workers["managed_plugin"]
    (worker,) = workers["compose"]
    began = {name: int(time) for name, (workspace, time) in reports.items() if workspace == worker}
    assert min(began, key=began.__getitem__) == "test_compose-0"


def test_what_takes_long_comes_before_what_does_not() -> None:
    modules = ("common/test_streams.py", "e2e/test_thin.py", "harness/test_ceph.py", "snapshotter/test_model.py")
    items: Any = [SimpleNamespace(nodeid=f"tests/{module}::test") for module in modules]
    on_a_worker: Any = SimpleNamespace(workerinput={})
    pytest_collection_modifyitems(on_a_worker, items)
    assert [item.nodeid.split("/")[-1] for item in items] == [
        f"{name}.py::test" for name in ("test_ceph", "test_thin", "test_streams", "test_model")
    ]
