"""The demonstration as `make demo` runs it, on its own daemons."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[3]


@contextmanager
def _demo(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-m", "harness.demo"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_circle_closes_and_leaves_nothing(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.count(": equal (") == 4
    assert "start of the thin image on B" in output
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demonstration_leaves_nothing(tmp_path: Path) -> None:
    with _demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "loaded on node A" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "Interrupted; nothing is left of it." in output
    assert list(tmp_path.iterdir()) == []
