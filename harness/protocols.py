"""Generates the code of the wire interfaces from their `.proto` files: `python -m harness.protocols`."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["SOURCES", "generate"]

_ROOT: Final = Path(__file__).parents[1]
_DIRECTORIES: Final = (_ROOT / "services" / "snapshotter" / "proto", _ROOT / "harness" / "cri")
SOURCES: Final = sorted(source for directory in _DIRECTORIES for source in directory.glob("*.proto"))
"""What code is generated from."""


def generate(destination: Path) -> None:
    """Write messages, their types and services, below a directory as they are in the checkout.

    Raises
    ------
    subprocess.CalledProcessError
        The compiler refuses a source.
    """
    # The compiler finds its plugins by PATH: those of this environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    outputs = [f"--{kind}_out={destination}" for kind in ("python", "mypy", "grpclib_python")]
    sources = [source.relative_to(_ROOT) for source in SOURCES]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", *outputs, *sources],
        cwd=_ROOT,
        env={**os.environ, "PATH": path},
        check=True,
    )


if __name__ == "__main__":
    generate(_ROOT)
