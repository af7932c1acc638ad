"""How many processes make objects."""

import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.repository.native.format import RepositoryFormat
from services.repository.native.writer import pool
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.pool import WorkerPool


def test_there_is_a_process_for_each_core_that_a_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":  # noqa: ANN401 - those of a process
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(pool, "usable_cores", lambda: 3)
    monkeypatch.setattr(subprocess, "Popen", start)
    with (
        closing(ContentIndex(tmp_path / "index")) as index,
        WorkerPool(files=tmp_path, index=index.path, chosen=RepositoryFormat(), check=True),
    ):
        assert len(started) == 3
