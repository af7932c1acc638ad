"""The demonstration as `make demo` runs it, on its own daemons."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.images import write_image
from tests.support import native_cvmfs2
from tests.support.e2e import BASE, write_base

_ROOT = Path(__file__).parents[3]
_PATIENCE = 1200
"""Seconds: a machine may be so busy, and what does not end is found all the same."""


@pytest.fixture(scope="module")
def small_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an image with a tenth of the files that the demonstration's own has."""
    directory = tmp_path_factory.mktemp("image")
    write_base(directory / "base.tar")
    write_image(directory / "image.tar", name=BASE, layers=[directory / "base.tar"])
    return directory / "image.tar"


@contextmanager
def _demo(temporary: Path, *arguments: str, programs: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-m", "harness.demo", *arguments]
    path = os.pathsep.join([*([str(programs)] if programs else []), os.environ["PATH"]])
    environment = {**os.environ, "TMPDIR": str(temporary), "PATH": path}
    with subprocess.Popen(command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_circle_closes_and_leaves_nothing(tmp_path: Path) -> None:
    with _demo(tmp_path, "--large", "3") as process:
        output, _ = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, output
    assert output.count(": equal (") == 8
    assert "from docker push to visible" in output
    for front_end, elsewhere in (("graphdriver", "B"), ("containerd snapshotter", "A")):
        figures = output.partition(f"changed and committed under the {front_end}:")[2]
        assert f"start of the thin image on {elsewhere}" in figures
    assert list(tmp_path.iterdir()) == []


def test_a_client_of_the_machine_mounts_a_native_repository(tmp_path: Path, small_image: Path) -> None:
    temporary, programs = tmp_path / "tmp", tmp_path / "bin"
    for directory in (temporary, programs):
        directory.mkdir()
    client = native_cvmfs2.install(programs)
    with _demo(temporary, "--image", str(small_image), "--large", "3", programs=programs) as process:
        output, _ = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, output
    assert f"the repository is native, mounted by HTTP, since this machine has a CVMFS client: {client}" in output
    assert output.count(": equal (") == 8
    assert list(temporary.iterdir()) == []


def test_an_interrupted_demonstration_leaves_nothing(tmp_path: Path, small_image: Path) -> None:
    with _demo(tmp_path, "--image", str(small_image)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "loaded on node A" in line:
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "Interrupted; nothing is left of it." in output
    assert list(tmp_path.iterdir()) == []
