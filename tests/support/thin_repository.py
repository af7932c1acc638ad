"""The program `thin-repository`, run as operators run it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "thin_repository"]


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    status: int
    output: str
    error: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """What it wrote with `--json`, having succeeded."""
        assert self.status == 0, self.error
        return json.loads(self.output)


def thin_repository(*arguments: str | Path) -> Ended:
    """Run it; it shows no private key and no stack, whatever happens."""
    argv = [sys.executable, "-m", "services.publisher.repository.native.commands", *map(str, arguments)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert "PRIVATE KEY" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)
