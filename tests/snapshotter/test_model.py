"""Whatever is done in whatever order, and killed in between, the snapshots are those that were answered."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.snapshotter.proto.snapshots_pb2 import Info, Kind, UsageResponse
from tests.support.containerd import ContainerdClient
from tests.support.mounts import unmount_all_below
from tests.support.repositories import DIFF_ID, Repository

_T = TypeVar("_T")

NAMES = st.sampled_from(["moby/1/extract-1 sha256:a", "moby/2/b-init-key", "moby/3/b-init", "k8s.io/4/ä", "sha256:e"])
LABELS = st.dictionaries(
    st.sampled_from(["containerd.io/snapshot.ref", "containerd.io/snapshot/x"]), st.sampled_from("12")
)
REF = "containerd.io/snapshot.ref"
PUBLISHED = st.sampled_from(
    ["k8s.io/5/extract-1 sha256:f", "k8s.io/6/extract-2 sha256:f", "k8s.io/7/extract-3 sha256:g"]
)
CHAINS = (f"sha256:{DIFF_ID}", f"sha256:{sha256(f'sha256:{DIFF_ID} sha256:{DIFF_ID}'.encode()).hexdigest()}")
"""Chain IDs of two layers in a repository, the second on the first."""
Call = Callable[[ContainerdClient], Awaitable[_T]]


class KilledError(Exception):
    """The snapshotter has killed itself."""


@dataclass(frozen=True)
class Expected:
    """What a snapshot ought to be."""

    kind: int
    parent: str
    labels: dict[str, str] = field(default_factory=dict)
    remote: bool = False


class Snapshots(RuleBasedStateMachine):
    """A snapshotter and what it ought to know."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="snapshots-", dir=os.environ["SNAPSHOTS_DIRECTORY"]))
        self.runtime = Path(tempfile.mkdtemp(prefix="snapshots-", dir="/run"))
        self.socket = self.runtime / "socket"
        repository = Repository(self.directory / "cvmfs")
        self.layers = [repository.publish(name, {name: "x"}).digest for name in ("lower", "upper")]
        self.runner = asyncio.Runner()
        self.expected: dict[str, Expected] = {}
        self.starter = subprocess.Popen(
            [sys.executable, "-m", "tests.support.snapshotter_killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "SNAPSHOTTER_STATE": str(self.directory / "state"),
                "SNAPSHOTTER_SOCKET": str(self.socket),
                "SNAPSHOTTER_REMOTE": "cri",
                "SNAPSHOTTER_REPOSITORIES": repository.name,
                "SNAPSHOTTER_CVMFS_ROOT": str(self.directory / "cvmfs"),
            },
        )
        self.start()

    def start(self, last: int = 0) -> None:
        """Kill it, and start it again; it kills itself at a change of a file, if one is given."""
        assert self.starter.stdin is not None
        assert self.starter.stdout is not None
        self.starter.stdin.write(f"{last}\n")
        self.starter.stdin.flush()
        self.process = int(self.starter.stdout.readline())
        self.channel: Channel | None = None

    def call(self, call: Call[_T]) -> _T:
        """Make a call that can be made again where it is killed on the way."""
        try:
            return self.runner.run(self._call(call))
        except KilledError:
            self.start()
            return self.runner.run(self._call(call))

    async def _call(self, call: Call[_T]) -> _T:
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.channel is None:
                    self.channel = Channel(path=str(self.socket))
                    await self.channel.__connect__()
                return await call(ContainerdClient(self.channel))
            except (OSError, StreamTerminatedError) as error:
                # It has just been started, or it has killed itself and is about to be seen dead.
                if self.channel is not None:
                    self.channel.close()
                begun = isinstance(error, StreamTerminatedError)
                self.channel = None
                while not self._has_ended():
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
                    if not begun:
                        break
                else:
                    raise KilledError from None

    def _has_ended(self) -> bool:
        return Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def change(self, call: Call[object], outcome: Status | None, after: dict[str, Expected]) -> None:
        """Make a call that changes something; where it is killed on the way, all of it is there or nothing."""

        async def status(client: ContainerdClient) -> Status | None:
            try:
                await call(client)
            except GRPCError as error:
                return error.status
            return None

        try:
            assert self.runner.run(self._call(status)) is outcome
        except KilledError:
            self.start()
            listed = self._listed()
            assert listed in (_visible(self.expected), _visible(after))
            if listed == _visible(self.expected):
                return
        self.expected = after

    def _listed(self) -> dict[str, tuple[int, str, dict[str, str]]]:
        infos = self.call(lambda client: client.list())
        return {info.name: (info.kind, info.parent, dict(info.labels)) for info in infos}

    def teardown(self) -> None:
        try:
            if self.channel is not None:
                self.channel.close()
            self.starter.communicate()
            self.runner.close()
        finally:
            # The last one may have tried whether it can mount there.
            unmount_all_below(self.directory)
            shutil.rmtree(self.directory)
            shutil.rmtree(self.runtime)

    def _create_outcome(self, key: str, parent: str) -> Status | None:
        if key in self.expected:
            return Status.ALREADY_EXISTS
        if parent and parent not in self.expected:
            return Status.NOT_FOUND
        if parent and self.expected[parent].kind != Kind.COMMITTED:
            return Status.INVALID_ARGUMENT
        return None

    def _with(self, outcome: Status | None, key: str, new: Expected) -> dict[str, Expected]:
        return self.expected if outcome else {**self.expected, key: new}

    @rule(key=NAMES, parent=NAMES | PUBLISHED | st.just(""), labels=LABELS)
    def prepare(self, key: str, parent: str, labels: dict[str, str]) -> None:
        outcome = self._create_outcome(key, parent)
        after = self._with(outcome, key, Expected(Kind.ACTIVE, parent, labels))
        self.change(lambda client: client.prepare(key, parent, labels), outcome, after)

    @rule(key=PUBLISHED, parent=NAMES | PUBLISHED | st.just(""), place=st.sampled_from([0, 1]))
    def prepare_published(self, key: str, parent: str, place: int) -> None:
        labels = {REF: CHAINS[place], "containerd.io/snapshot/cri.layer-digest": f"sha256:{self.layers[place]}"}
        outcome = self._create_outcome(key, parent)
        below = self.expected.get(parent)
        fits = place == 0 if below is None else place == 1 and below.remote and below.labels[REF] == CHAINS[0]
        after = self._with(outcome, key, Expected(Kind.ACTIVE, parent, labels))
        if outcome is None and fits:
            outcome = Status.ALREADY_EXISTS
            alike = [one for one in self.expected.values() if one.remote and one.parent == parent]
            if any(one.labels[REF] == CHAINS[place] for one in alike):
                after = self.expected
            else:
                after = {**self.expected, key: Expected(Kind.COMMITTED, parent, labels, remote=True)}
        self.change(lambda client: client.prepare(key, parent, labels), outcome, after)

    @rule(key=PUBLISHED, data=st.data())
    def prepare_what_fits(self, key: str, data: st.DataObject) -> None:
        lower = sorted(name for name, one in self.expected.items() if one.remote and one.labels[REF] == CHAINS[0])
        parent = data.draw(st.sampled_from(["", *lower]))
        self.prepare_published(key, parent, 1 if parent else 0)

    @rule(key=NAMES, parent=NAMES | PUBLISHED)
    def view(self, key: str, parent: str) -> None:
        outcome = self._create_outcome(key, parent)
        after = self._with(outcome, key, Expected(Kind.VIEW, parent))
        self.change(lambda client: client.view(key, parent), outcome, after)

    @rule(name=NAMES, key=NAMES, labels=LABELS)
    def commit(self, name: str, key: str, labels: dict[str, str]) -> None:
        outcome, after = None, dict(self.expected)
        if name in self.expected:
            outcome = Status.ALREADY_EXISTS
        elif key not in self.expected:
            outcome = Status.NOT_FOUND
        elif self.expected[key].kind != Kind.ACTIVE:
            outcome = Status.FAILED_PRECONDITION
        else:
            after[name] = Expected(Kind.COMMITTED, after.pop(key).parent, labels)
        self.change(lambda client: client.commit(name, key, labels), outcome, after)

    @rule(data=st.data())
    @precondition(lambda self: any(one.kind == Kind.ACTIVE for one in self.expected.values()))
    def commit_what_is_active(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, one in self.expected.items() if one.kind == Kind.ACTIVE)))
        self.commit(data.draw(NAMES), key, {})

    @rule(key=NAMES | PUBLISHED)
    def remove(self, key: str) -> None:
        outcome, after = None, dict(self.expected)
        if key not in self.expected:
            outcome = Status.NOT_FOUND
        elif any(one.parent == key for one in self.expected.values()):
            outcome = Status.FAILED_PRECONDITION
        else:
            del after[key]
        self.change(lambda client: client.remove(key), outcome, after)

    @rule(name=NAMES, labels=LABELS, paths=st.sampled_from([(), ("labels",), ("labels.containerd.io/snapshot.ref",)]))
    def update(self, name: str, labels: dict[str, str], paths: tuple[str, ...]) -> None:
        outcome: Status | None = Status.NOT_FOUND
        after = self.expected
        if (old := self.expected.get(name)) is not None:
            new = {**old.labels, REF: labels.get(REF, "")} if paths and paths != ("labels",) else labels
            changed = replace(old, labels={label: value for label, value in new.items() if value})
            outcome, after = None, {**self.expected, name: changed}
        self.change(lambda client: client.update(name, labels, *paths), outcome, after)

    @rule(name=NAMES)
    def look(self, name: str) -> None:
        async def ask(client: ContainerdClient) -> tuple[Info, UsageResponse, bool] | Status:
            try:
                info, usage = await client.stat(name), await client.usage(name)
            except GRPCError as error:
                return error.status
            try:
                return info, usage, bool(await client.mounts(name))
            except GRPCError as error:
                return info, usage, error.status is not Status.FAILED_PRECONDITION

        answer = self.call(ask)
        if isinstance(answer, Status):
            assert answer is Status.NOT_FOUND
            assert name not in self.expected
            return
        info, usage, is_mounted = answer
        assert (info.kind, info.parent, dict(info.labels)) == _visible(self.expected)[name]
        assert usage.inodes == (0 if info.kind == Kind.VIEW else 1)
        assert is_mounted == (info.kind != Kind.COMMITTED)

    @rule()
    def clean_up(self) -> None:
        self.call(lambda client: client.cleanup())
        # Beside the links to published layers.
        trees = [path for path in (self.directory / "state/l").iterdir() if not path.is_symlink()]
        assert len(trees) == sum(not one.remote for one in self.expected.values())
        assert list((self.directory / "state/trash").iterdir()) == []

    @rule()
    def kill(self) -> None:
        if self.channel is not None:
            self.channel.close()
        self.start()

    @rule(last=st.integers(10, 60))
    def kill_later(self, last: int) -> None:
        """Have it kill itself as it starts, or within one of the next operations."""
        if self.channel is not None:
            self.channel.close()
        self.start(last)

    @invariant()
    def all_are_listed(self) -> None:
        assert self._listed() == _visible(self.expected)


def _visible(expected: dict[str, Expected]) -> dict[str, tuple[int, str, dict[str, str]]]:
    return {name: (int(one.kind), one.parent, one.labels) for name, one in expected.items()}


def test_the_snapshots_are_those_that_were_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPSHOTS_DIRECTORY", str(tmp_path))
    run_state_machine_as_test(
        Snapshots,
        settings=settings(
            max_examples=5,
            stateful_step_count=25,
            deadline=None,
            # Each run takes seconds: to make a failing one smaller would take an hour.
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
