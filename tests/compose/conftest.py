"""The compose files as docker compose reads them; no engine is needed for that."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.compose import CHECKOUT

Read = Callable[..., dict[str, Any]]

NEEDED = {
    "LAYER_STORE_ENDPOINT": "https://s3.example.org",
    "CVMFS_SOURCE": "https://packages.example.org/cvmfs-release.deb",
}
"""What has no default, in one variant or another."""


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Reads docker-compose.yml, and the override files of variants after it, with every profile."""
    empty = tmp_path_factory.mktemp("empty") / "env"
    empty.touch()

    def read_variant(*variants: str, **settings: str) -> dict[str, Any]:
        files = ["docker-compose.yml", *(f"docker-compose.{variant}.yml" for variant in variants)]
        command = ["docker", "compose", "--env-file", str(empty), "--profile", "*"]
        command += [word for name in files for word in ("--file", str(CHECKOUT / name))]
        ended = subprocess.run(
            [*command, "config", "--format", "json"],
            env={"PATH": os.environ["PATH"], "HOME": str(empty.parent), **NEEDED, **settings},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert ended.stderr == ""
        document: dict[str, Any] = json.loads(ended.stdout)
        return document

    return read_variant


def handed_out(services: dict[str, Any]) -> dict[str, list[str]]:
    """Return the user of each service that has secrets, and then their names."""
    service = services["secrets"]
    lines = [*service["command"], *service["environment"].get("HAND_OUT_ALSO", "").splitlines()]
    found: dict[str, list[str]] = {}
    for name, user, *secrets in map(str.split, lines):
        assert found.setdefault(name, [user])[0] == user
        found[name] += secrets
    return found


VARIANTS = sorted(path.name.split(".")[1] for path in Path(CHECKOUT).glob("docker-compose.*.yml"))
