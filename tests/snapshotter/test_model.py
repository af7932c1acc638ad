"""Whatever is done in whatever order, and killed in between, the snapshots are those that were answered."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.snapshotter.proto.snapshots_pb2 import Info, Kind
from tests.support.containerd import ContainerdClient
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


@dataclass
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

    def start(self) -> None:
        assert self.starter.stdin is not None
        assert self.starter.stdout is not None
        self.starter.stdin.write("\n")
        self.starter.stdin.flush()
        assert self.starter.stdout.readline() == "started\n"
        self.channel: Channel | None = None

    def call(self, call: Call[_T]) -> _T:
        return self.runner.run(self._call(call))

    async def _call(self, call: Call[_T]) -> _T:
        deadline = time.monotonic() + 120
        while True:
            try:
                if self.channel is None:
                    self.channel = Channel(path=str(self.socket))
                    await self.channel.__connect__()
                return await call(ContainerdClient(self.channel))
            except (FileNotFoundError, ConnectionRefusedError):
                # It has just been started.
                self.channel = None
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    def outcome(self, call: Call[object]) -> Status | None:
        try:
            self.call(call)
        except GRPCError as error:
            return error.status
        return None

    def teardown(self) -> None:
        try:
            if self.channel is not None:
                self.channel.close()
            self.starter.communicate()
            self.runner.close()
        finally:
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

    @rule(key=NAMES, parent=NAMES | PUBLISHED | st.just(""), labels=LABELS)
    def prepare(self, key: str, parent: str, labels: dict[str, str]) -> None:
        outcome = self._create_outcome(key, parent)
        assert self.outcome(lambda client: client.prepare(key, parent, labels)) == outcome
        if outcome is None:
            self.expected[key] = Expected(Kind.ACTIVE, parent, labels)

    @rule(key=PUBLISHED, parent=NAMES | PUBLISHED | st.just(""), place=st.sampled_from([0, 1]))
    def prepare_published(self, key: str, parent: str, place: int) -> None:
        labels = {REF: CHAINS[place], "containerd.io/snapshot/cri.layer-digest": f"sha256:{self.layers[place]}"}
        outcome = self._create_outcome(key, parent)
        below = self.expected.get(parent)
        fits = place == 0 if below is None else place == 1 and below.remote and below.labels[REF] == CHAINS[0]
        found = self.outcome(lambda client: client.prepare(key, parent, labels))
        if outcome is not None:
            assert found is outcome
        elif not fits:
            assert found is None
            self.expected[key] = Expected(Kind.ACTIVE, parent, labels)
        else:
            assert found is Status.ALREADY_EXISTS
            alike = (one for one in self.expected.values() if one.remote and one.parent == parent)
            if all(one.labels[REF] != CHAINS[place] for one in alike):
                self.expected[key] = Expected(Kind.COMMITTED, parent, labels, remote=True)

    @rule(key=PUBLISHED, data=st.data())
    def prepare_what_fits(self, key: str, data: st.DataObject) -> None:
        lower = sorted(name for name, one in self.expected.items() if one.remote and one.labels[REF] == CHAINS[0])
        parent = data.draw(st.sampled_from(["", *lower]))
        self.prepare_published(key, parent, 1 if parent else 0)

    @rule(key=NAMES, parent=NAMES | PUBLISHED)
    def view(self, key: str, parent: str) -> None:
        outcome = self._create_outcome(key, parent)
        assert self.outcome(lambda client: client.view(key, parent)) == outcome
        if outcome is None:
            self.expected[key] = Expected(Kind.VIEW, parent)

    @rule(name=NAMES, key=NAMES, labels=LABELS)
    def commit(self, name: str, key: str, labels: dict[str, str]) -> None:
        outcome = self.outcome(lambda client: client.commit(name, key, labels))
        if name in self.expected:
            assert outcome is Status.ALREADY_EXISTS
        elif key not in self.expected:
            assert outcome is Status.NOT_FOUND
        elif self.expected[key].kind != Kind.ACTIVE:
            assert outcome is Status.FAILED_PRECONDITION
        else:
            assert outcome is None
            self.expected[name] = Expected(Kind.COMMITTED, self.expected.pop(key).parent, labels)

    @rule(data=st.data())
    @precondition(lambda self: any(one.kind == Kind.ACTIVE for one in self.expected.values()))
    def commit_what_is_active(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, one in self.expected.items() if one.kind == Kind.ACTIVE)))
        self.commit(data.draw(NAMES), key, {})

    @rule(key=NAMES | PUBLISHED)
    def remove(self, key: str) -> None:
        outcome = self.outcome(lambda client: client.remove(key))
        if key not in self.expected:
            assert outcome is Status.NOT_FOUND
        elif any(one.parent == key for one in self.expected.values()):
            assert outcome is Status.FAILED_PRECONDITION
        else:
            assert outcome is None
            del self.expected[key]

    @rule(name=NAMES, labels=LABELS, paths=st.sampled_from([(), ("labels",), ("labels.containerd.io/snapshot.ref",)]))
    def update(self, name: str, labels: dict[str, str], paths: tuple[str, ...]) -> None:
        outcome = self.outcome(lambda client: client.update(name, labels, *paths))
        if name not in self.expected:
            assert outcome is Status.NOT_FOUND
            return
        assert outcome is None
        if paths and paths != ("labels",):
            labels = {**self.expected[name].labels, REF: labels.get(REF, "")}
        self.expected[name].labels = {label: value for label, value in labels.items() if value}

    @rule(name=NAMES)
    def stat(self, name: str) -> None:
        if name in self.expected:
            self._compare(self.call(lambda client: client.stat(name)))
        else:
            assert self.outcome(lambda client: client.stat(name)) is Status.NOT_FOUND

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

    @invariant()
    def all_are_listed(self) -> None:
        infos = self.call(lambda client: client.list())
        assert sorted(info.name for info in infos) == sorted(self.expected)
        for info in infos:
            self._compare(info)

    def _compare(self, info: Info) -> None:
        expected = self.expected[info.name]
        assert (info.kind, info.parent, dict(info.labels)) == (expected.kind, expected.parent, expected.labels)


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
