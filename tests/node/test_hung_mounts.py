"""Mounts on a repository that answers until its layer has been found, and then hangs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.common.descriptor import LayerUrl
from services.node.cvmfs.finder import PublishedLayer
from services.node.errors import RepositoryError
from services.node.layers import Layer, LayerId
from tests.node.conftest import Core
from tests.support.driver import contents
from tests.support.fuse import served, stop
from tests.support.mounts import mounts_below
from tests.support.repositories import Repository


@dataclass(frozen=True)
class Hung:
    """A container whose repository hangs when its layer has been found."""

    core: Core
    layer: Layer
    client: int
    """The process that serves the repository."""

    async def begin(self) -> asyncio.Task[Path]:
        """Start to mount the container, and return when the repository hangs and the kernel is at the mount."""
        mounting = asyncio.create_task(self.core.mount(self.layer))

        async def hangs() -> bool:
            state = Path(f"/proc/{self.client}/stat").read_text().rpartition(")")[2].split()[0]
            return state == "T" and not self.core.builder.quiet

        await wait_until(hangs, what="the mount hangs")
        return mounting

    async def give_up(self) -> None:
        """Start to mount the container, and wait until the driver gives up."""
        with pytest.raises(
            RepositoryError,
            match=r"the union of layer h cannot be mounted: repository test\.example\.org does not answer within 5 s",
        ):
            await (await self.begin())

    async def recover(self) -> None:
        """Let the repository answer, and wait until every mount has ended."""
        os.kill(self.client, signal.SIGCONT)

        async def ended() -> bool:
            return self.core.builder.quiet

        await wait_until(ended, what="every mount has ended")


@pytest.fixture
async def hung(
    core: Core,
    cvmfs_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mounting: None,  # noqa: ARG001 - ends after this
) -> AsyncIterator[Hung]:
    source = Repository(tmp_path / "source")
    url = source.publish("one", {"a": "one"})
    find = core.finder.wait
    with served(source.root, cvmfs_root / "test.example.org") as client:

        async def find_and_hang(
            urls: Sequence[LayerUrl],
            *,
            holder: str,
            timeout: float,  # noqa: ASYNC109 - as the method that it stands for
        ) -> dict[LayerUrl, PublishedLayer]:
            found = await find(urls, holder=holder, timeout=timeout)
            if url in urls:
                stop(client.pid)
            return found

        monkeypatch.setattr(core.finder, "wait", find_and_hang)
        core.add_thin("thin", None, [url])
        yield Hung(core, core.add("h", "thin", container=True), client.pid)
        os.kill(client.pid, signal.SIGCONT)
        for layer_id in core.unions.mounted():
            await core.unions.discard(layer_id)


async def test_no_mount_on_another_repository_waits_for_it(
    core: Core, hung: Hung, other_repository: Repository
) -> None:
    core.add_thin("good", None, [other_repository.publish("two", {"b": "two"})])
    core.add("base", None, {"c": "base"})
    mounting = await hung.begin()
    assert contents(await core.mount(core.add("g", "good", container=True))) == {"b": "two"}
    assert contents(await core.mount(core.add("r", "base", container=True))) == {"c": "base"}
    async with core.builder.view(core.lineage(core.layers.find(LayerId("g"))), holder="viewer") as view:
        assert contents(view) == {"b": "two"}
    assert not mounting.done()
    with pytest.raises(RepositoryError, match=r"layer h cannot be mounted: repository test\.example\.org does not"):
        await mounting
    assert hung.layer.id not in core.unions
    await hung.recover()


async def test_a_mount_that_nobody_waits_for_any_more_never_shows(core: Core, hung: Hung) -> None:
    """Nobody would hold it; and while it may still come, another one would have the same work directory."""
    await hung.give_up()
    with pytest.raises(RepositoryError, match="layer h cannot be mounted: its last mount still waits for repository"):
        await core.mount(hung.layer)
    await hung.recover()
    assert mounts_below(core.home) == []


async def test_the_layer_is_mounted_when_the_repository_answers_again(hung: Hung) -> None:
    await hung.give_up()
    await hung.recover()
    mounting = await hung.begin()
    await hung.recover()
    assert contents(await mounting) == {"a": "one"}


async def test_the_layer_can_be_removed_meanwhile(core: Core, hung: Hung) -> None:
    await hung.give_up()
    await core.unions.discard(hung.layer.id)
    core.layers.remove(hung.layer.id)
    await hung.recover()
    assert not hung.layer.directory.exists()
    assert os.listdir(core.home / "trash") == []


async def test_a_cancelled_mount_never_shows(core: Core, hung: Hung) -> None:
    mounting = await hung.begin()
    mounting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await mounting
    await hung.recover()
    assert mounts_below(core.home) == []


async def test_a_view_is_given_up_too(core: Core, hung: Hung) -> None:
    with pytest.raises(RepositoryError, match="does not answer within 5 s"):
        async with core.builder.view(core.lineage(hung.layer), holder="viewer"):
            pytest.fail("the view is mounted")
    await hung.recover()
    assert mounts_below(core.home) == []
    assert os.listdir(core.home / "views") == []


async def test_what_the_mount_still_needs_is_not_tidied_away(core: Core, hung: Hung) -> None:
    mounting = await hung.begin()
    assert not await core.builder.tidy()
    with pytest.raises(RepositoryError, match="does not answer within 5 s"):
        await mounting
    assert not await core.builder.tidy()
    assert any(str(link.readlink()).startswith("/") for link in (core.home / "l").iterdir())
    await hung.recover()
    assert await core.builder.tidy()
    assert all(str(link.readlink()).startswith("../layers/") for link in (core.home / "l").iterdir())
