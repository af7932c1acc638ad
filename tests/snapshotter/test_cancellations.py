"""Clients that go while their calls are served, as a command that is interrupted: nothing is left behind or lost."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod

from harness.processes import wait_until
from services.snapshotter.proto.snapshots_pb2 import Kind
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient
from tests.support.repositories import Repository, thin_json

_T = TypeVar("_T")


class Held:
    """A step of a change that can be seen, and goes on when it is told to."""

    def __init__(self, step: Callable[..., _T]) -> None:
        self._step = step
        self._begun = threading.Event()
        self._go_on = threading.Event()

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - those of the step
        self._begun.set()
        assert self._go_on.wait(300)
        return self._step(*arguments)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 300)

    def go_on(self) -> None:
        self._go_on.set()


class Interrupted:
    """Calls that are cancelled while a step of theirs is made."""

    def __init__(self, snapshotters: Snapshotters, monkeypatch: pytest.MonkeyPatch) -> None:
        self._snapshotters = snapshotters
        self._monkeypatch = monkeypatch

    async def at(self, step: str, call: Callable[[ContainerdClient], Coroutine[Any, Any, Any]]) -> None:
        """Make a call over a connection of its own, and cancel it; the step goes on afterwards."""
        store = self._snapshotters.front_end.store
        owner: Any = store.records if step.startswith("records.") else store
        name = step.removeprefix("records.")
        with self._monkeypatch.context() as patch:
            held = Held(getattr(owner, name))
            patch.setattr(owner, name, held)
            channel = Channel(path=str(self._snapshotters.settings.socket))
            try:
                calling = asyncio.create_task(call(ContainerdClient(channel)))
                await held.begun()
                calling.cancel()
                await asyncio.wait((calling,))
                assert calling.cancelled()
                # What comes later over the same connection is read later.
                with pytest.raises(GRPCError) as error:
                    await UnaryUnaryMethod(channel, "/no/Method", Empty, Empty)(Empty())
                assert error.value.status is Status.UNIMPLEMENTED
            finally:
                held.go_on()
                channel.close()


@pytest.fixture
def interrupted(
    snapshotters: Snapshotters,
    client: ContainerdClient,  # noqa: ARG001 - runs
    monkeypatch: pytest.MonkeyPatch,
) -> Interrupted:
    return Interrupted(snapshotters, monkeypatch)


def _directories(state: Path) -> set[Path]:
    found = {path for name in ("l", "work", "trash") for path in (state / name).iterdir()}
    return {path for path in found if not path.is_symlink()}


@pytest.mark.parametrize("parent", ["", "base", "thin"])
async def test_what_nobody_waits_for_is_not_there(
    client: ContainerdClient, interrupted: Interrupted, repository: Repository, state: Path, parent: str
) -> None:
    await client.layer("base", "", {"file": "x"})
    await client.layer("thin", "", {"thin.json": thin_json(repository.publish("layer", {"file": "y"}))})
    before = _directories(state)

    async def is_taken_back() -> bool:
        return {info.name for info in await client.list()} == {"base", "thin"}

    for step, call in (
        ("create", lambda client: client.prepare("moby/1/key", parent)),
        ("create", lambda client: client.view("moby/1/key", parent)),
        ("records.create", lambda client: client.prepare("moby/1/key", parent)),
    ):
        await interrupted.at(step, call)
        # It would be the client's at the next try, and anybody else's never.
        await wait_until(is_taken_back, what="it is taken back")
        await client.cleanup()
        assert _directories(state) == before
    await client.prepare("moby/1/key", parent)


async def test_what_has_begun_is_whole(client: ContainerdClient, interrupted: Interrupted, state: Path) -> None:
    await client.layer("base", "", {"file": "x"})
    await client.prepare("moby/1/key", "base")
    await interrupted.at("records.commit", lambda client: client.commit("name", "moby/1/key"))
    assert [(info.name, info.kind) for info in await client.list()] == [
        ("base", Kind.COMMITTED),
        ("name", Kind.COMMITTED),
    ]
    await interrupted.at("remove", lambda client: client.remove("name"))
    assert [info.name for info in await client.list()] == ["base"]
    await interrupted.at("records.update", lambda client: client.update("base", {"label": "x"}))
    assert dict((await client.stat("base")).labels) == {"label": "x"}
    # Files go, though the one who asked for it has gone as well.
    await interrupted.at("empty_trash", lambda client: client.cleanup())
    await client.cleanup()
    assert list((state / "trash").iterdir()) == []


async def test_what_a_removal_leaves_is_tidied_though_its_client_has_gone(
    client: ContainerdClient,
    interrupted: Interrupted,
    snapshotters: Snapshotters,
    repository: Repository,
    state: Path,
) -> None:
    await client.layer("thin", "", {"thin.json": thin_json(repository.publish("layer", {"file": "y"}))})
    await client.view("moby/1/view", "thin")
    await client.remove("moby/1/view")
    house = snapshotters.front_end.snapshotter.house
    await house.tidy()
    assert list((state / "l").glob("_*"))
    await interrupted.at("remove", lambda client: client.remove("thin"))
    assert await client.list() == []
    await house.tidy()
    assert list((state / "l").glob("_*")) == []
