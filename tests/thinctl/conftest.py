"""A publisher with layers in every state of interest."""

import io
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import pytest_asyncio

from harness.processes import wait_until
from harness.seaweedfs import SeaweedFS
from services.common.archive.model import LayerArchive
from services.common.repository_name import RepositoryName
from services.thinctl.__main__ import main
from tests.support.commands import Ended
from tests.support.object_stores import new_bucket
from tests.support.publisher import TOKEN, PublisherProcess, make_layer, upload


@dataclass(frozen=True, kw_only=True)
class Site:
    """A publisher, and what it has."""

    publisher: PublisherProcess
    token_file: Path
    published: tuple[LayerArchive, ...]
    refused: LayerArchive
    """A layer of another repository."""

    def read(self, *arguments: object) -> Ended:
        """Run a command without the token."""
        return thinctl(*arguments, env={"THINCTL_PUBLISHER": self.publisher.url})

    def change(self, *arguments: object) -> Ended:
        """Run a command with the token."""
        return self.read(*arguments, "--token-file", self.token_file)


def thinctl(*arguments: object, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command in this process, whose start would take longer than the command."""
    out, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(sys, "argv", ["thinctl", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(errors),
    ):
        status = main()
    return Ended(status, out.getvalue().encode(), errors.getvalue())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A publisher that sweeps at its start and when it is told to."""
    directory = tmp_path_factory.mktemp("thinctl")
    published = tuple(make_layer(directory, str(number)) for number in range(3))
    refused = make_layer(directory, "refused")
    token_file = directory / "token"
    token_file.write_text(f"{TOKEN}\n")
    async with new_bucket(seaweedfs.access) as access:
        await upload(access, *published)
        await upload(access, refused, repository=RepositoryName("other.cern.ch"))
        publisher = PublisherProcess(directory / "publisher", access, {"PUBLISHER_SWEEP_INTERVAL": "3600"})
        async with publisher.running():
            await publisher.published(*published)
            await publisher.becomes(refused.digest, "failed")

            async def swept() -> bool:
                return bool((await publisher.get("/v1/status"))["sweep"]["ended"])

            await wait_until(swept, what="the sweep that found them has ended")
            yield Site(publisher=publisher, token_file=token_file, published=published, refused=refused)
