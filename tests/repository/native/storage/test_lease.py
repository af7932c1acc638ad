"""The lease against a model: machines that take it, stop, go on, and whose requests arrive late, in any order."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from services.common.object_store.body import MemoryPart
from services.common.object_store.errors import (
    AccessDeniedError,
    ObjectMissingError,
    PreconditionFailedError,
)
from services.common.object_store.term import Term
from services.repository.native.errors import OvertakenError, RepositoryBusyError
from services.repository.native.storage.fenced import FencedRequests
from services.repository.native.storage.lease import Lease

if TYPE_CHECKING:
    from services.common.object_store.bucket import Bucket

_SECONDS: Final = 20
_NUMBERS: Final = st.integers(0, 1)
_AHEAD: Final = 1_700_000_000.25
"""Of the server's clock."""


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_failure: object) -> None:
        return

    async def read(self) -> bytes:
        return self._content


class MemoryBucket:
    """A store in memory that heeds conditions and terms, as one machine sees it through its own network."""

    def __init__(self, objects: dict[str, bytes], modified: dict[str, datetime], clock: Callable[[], float]) -> None:
        self._objects = objects
        self._modified = modified
        self._clock = clock
        self.gate: asyncio.Event | None = None
        """What requests under the lease wait for on their way, where that is something."""
        self.sent: asyncio.Future[Mapping[str, Any]] | None = None
        """The last one that did."""

    def place(self, key: str) -> str:
        return key

    def failures(self, **_what: object) -> AbstractContextManager[None]:
        return nullcontext()

    async def attempts(self) -> AsyncIterator[AbstractContextManager[None]]:
        yield nullcontext()

    async def request(self, operation: str, **parameters: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as the client has it
        return await self.request_once(operation, **parameters)

    async def request_once(self, operation: str, **parameters: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as above
        if parameters.get("term") is None or self.gate is None:
            return self._serve(operation, **parameters)
        gate = self.gate

        async def arrive() -> Mapping[str, Any]:
            await gate.wait()
            return self._serve(operation, **parameters)

        self.sent = asyncio.ensure_future(arrive())
        return await asyncio.shield(self.sent)

    def _serve(
        self,
        operation: str,
        *,
        key: str,
        doing: str,  # noqa: ARG002 - it is for errors
        body: MemoryPart | None = None,
        term: Term | None = None,
        **conditions: str,
    ) -> Mapping[str, Any]:
        now = self._clock() + _AHEAD
        if term is not None and now >= term.begins + term.seconds:
            raise AccessDeniedError("the term is over")
        content = self._objects.get(key)
        etag = None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()
        if operation == "put_object":
            if ("IfNoneMatch" in conditions and etag is not None) or conditions.get("IfMatch", etag) != etag:
                raise PreconditionFailedError("the condition does not hold")
            assert body is not None
            content = self._objects[key] = bytes(body.content)
            self._modified[key] = datetime.fromtimestamp(int(now), UTC)
            etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        elif content is None:
            raise ObjectMissingError("nothing is there")
        return {
            "ETag": f'"{etag}"',
            "Body": _Body(content or b""),
            "LastModified": self._modified[key],
            "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(now, usegmt=True)}},
        }


class Machine:
    """A publisher, as far as it changes the head."""

    def __init__(self, name: str, bucket: MemoryBucket, clock: Callable[[], float], directory: Path) -> None:
        self.name = name
        self.bucket = bucket
        store = cast("Bucket", bucket)
        self.lease = Lease(
            bucket=store, key="lease", holder=name, seconds=_SECONDS, patience=0, lock=directory / name, clock=clock
        )
        self.requests = FencedRequests(bucket=store, prefix="", lease=self.lease)
        self.entered = False
        self.head: str | None = None
        """The version of the head that it has read or written."""
        self.waiting: asyncio.Task[None] | None = None
        """For the answer to what it has sent."""


def _is_out(machine: Machine) -> bool:
    return not machine.entered


def _is_in_and_idle(machine: Machine) -> bool:
    return machine.entered and machine.waiting is None


def _can_send(machine: Machine) -> bool:
    return machine.entered and machine.bucket.gate is None


def _waits(machine: Machine) -> bool:
    return machine.waiting is not None


def _has_sent(machine: Machine) -> bool:
    return machine.bucket.gate is not None


class Machines(RuleBasedStateMachine):
    """Two of them, one store, and a clock that only this sets."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._now = 1000.0
        self._objects: dict[str, bytes] = {}
        modified = dict[str, datetime]()
        self._machines = [
            Machine(
                name,
                MemoryBucket(self._objects, modified, lambda: self._now),
                lambda: self._now,
                Path(self._directory.name),
            )
            for name in "ab"
        ]
        self._latest: Machine | None = None
        """Who has taken the lease last."""
        self._numbers = itertools.count()

    def teardown(self) -> None:
        self._runner.close()
        self._directory.cleanup()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - of any kind
        return self._runner.run(work)

    @rule(seconds=st.sampled_from([0.3, 4, 9, 19]))
    def time_passes(self, seconds: float) -> None:
        self._now += seconds

    def _some(self, which: Callable[[Machine], bool], number: int = 0) -> Machine | None:
        some = [machine for machine in self._machines if which(machine)]
        return some[number % len(some)] if some else None

    @precondition(lambda self: self._some(_is_out))
    @rule(number=_NUMBERS)
    def takes_the_lease(self, number: int) -> None:
        taker = self._some(_is_out, number)
        assert taker is not None
        try:
            self._run(taker.lease.enter())
        except RepositoryBusyError:
            assert self._latest not in (None, taker)
            self._now += _SECONDS + 2
            self._run(taker.lease.enter())  # nobody has renewed it meanwhile
        taker.entered, self._latest = True, taker
        try:
            _, taker.head = self._run(taker.requests.look("head"))
        except ObjectMissingError:
            taker.head = None

    @precondition(lambda self: self._some(_is_in_and_idle))
    @rule(number=_NUMBERS)
    def gives_it_back(self, number: int) -> None:
        holder = self._some(_is_in_and_idle, number)
        assert holder is not None
        self._run(holder.lease.leave())
        holder.entered = False

    @precondition(lambda self: self._some(_can_send))
    @rule(number=_NUMBERS, head=st.booleans())
    def sends(self, number: int, *, head: bool) -> None:
        sender = self._some(_can_send, number)
        assert sender is not None
        sender.bucket.gate = asyncio.Event()

        async def send() -> "asyncio.Task[None]":
            task = asyncio.ensure_future(self._write(sender, head=head))
            for _ in range(4):
                await asyncio.sleep(0)  # until it waits at the gate
            return task

        sender.waiting = self._run(send())

    @precondition(lambda self: self._some(_waits))
    @rule(number=_NUMBERS)
    def waits_no_longer_for_the_answer(self, number: int) -> None:
        sender = self._some(_waits, number)
        assert sender is not None
        assert sender.waiting is not None
        sender.waiting.cancel()
        self._run(_ended(sender.waiting))
        sender.waiting = None

    @precondition(lambda self: self._some(_has_sent))
    @rule(number=_NUMBERS)
    def what_was_sent_arrives(self, number: int) -> None:
        sender = self._some(_has_sent, number)
        assert sender is not None
        assert sender.bucket.gate is not None
        before = dict(self._objects)
        sender.bucket.gate.set()
        for work in (sender.bucket.sent, sender.waiting):
            if work is not None:
                self._run(_ended(work))
        sender.waiting = sender.bucket.gate = sender.bucket.sent = None
        if self._objects != before:
            assert sender is self._latest, "somebody else has the lease"

    def would_wait(self, number: int) -> bool:
        """Whether a machine that looks at the lease for the first time does not get it."""
        try:
            self._run(self._machines[number].lease.enter())
        except RepositoryBusyError:
            return True
        return False

    async def _write(self, machine: Machine, *, head: bool) -> None:
        content = b"%s %d" % (machine.name.encode(), next(self._numbers))
        if head:
            former = machine.head
            machine.head = await machine.requests.exchange("head", content, former)
        else:
            await machine.requests.replace("log", content)


async def _ended(work: "asyncio.Future[Any]") -> None:
    """Wait for the end of something that may be refused."""
    with suppress(asyncio.CancelledError, OvertakenError, AccessDeniedError, PreconditionFailedError):
        await work


TestMachines = Machines.TestCase
TestMachines.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("waits", [True, False])
def test_what_was_sent_arrives_when_another_has_the_lease(*, waits: bool) -> None:
    """Also where the sender has not waited for the answer, and would have given the lease back."""
    machines = Machines()
    machines.takes_the_lease(number=0)
    machines.sends(number=0, head=False)
    if not waits:
        machines.waits_no_longer_for_the_answer(number=0)
        machines.gives_it_back(number=0)
        machines.time_passes(seconds=0.3)
    machines.takes_the_lease(number=-1)
    machines.what_was_sent_arrives(number=0)
    machines.teardown()


@pytest.mark.parametrize(("seconds", "waits"), [(_SECONDS + 0.9, True), (_SECONDS + 2.1, False)])
def test_who_looks_late_at_the_lease_of_a_dead_holder_waits_no_longer(seconds: float, *, waits: bool) -> None:
    machines = Machines()
    machines.takes_the_lease(number=0)
    machines.time_passes(seconds=seconds)
    assert machines.would_wait(1) is waits
    machines.teardown()


def test_who_looks_again_knows_better_since_when_it_is_so() -> None:
    machines = Machines()
    machines.takes_the_lease(number=0)
    machines.time_passes(seconds=_SECONDS + 0.7)
    assert machines.would_wait(1)
    machines.time_passes(seconds=1.1)  # by the first look, it could have been written 1.7 s later than it was
    assert not machines.would_wait(1)
    machines.teardown()
