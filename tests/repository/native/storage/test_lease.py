"""The lease against a model: machines that take it, stop, go on, and whose requests arrive late, in any order."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from email.utils import formatdate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

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

    def __init__(self, objects: dict[str, bytes], clock: Callable[[], float]) -> None:
        self._objects = objects
        self._clock = clock
        self.gate: asyncio.Event | None = None
        """What requests under the lease wait for on their way, where that is something."""

    def place(self, key: str) -> str:
        return key

    def failures(self, **_what: object) -> AbstractContextManager[None]:
        return nullcontext()

    async def attempts(self) -> AsyncIterator[AbstractContextManager[None]]:
        yield nullcontext()

    async def request(self, operation: str, **parameters: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as the client has it
        return await self.request_once(operation, **parameters)

    async def request_once(
        self,
        operation: str,
        *,
        key: str,
        doing: str,  # noqa: ARG002 - it is for errors
        body: MemoryPart | None = None,
        term: Term | None = None,
        **conditions: str,
    ) -> Mapping[str, Any]:
        if term is not None and self.gate is not None:
            await self.gate.wait()
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
            etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        elif content is None:
            raise ObjectMissingError("nothing is there")
        return {
            "ETag": f'"{etag}"',
            "Body": _Body(content or b""),
            "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(now, usegmt=True)}},
        }


class Machine:
    """A publisher, as far as it changes the head."""

    def __init__(self, name: str, objects: dict[str, bytes], clock: Callable[[], float], directory: Path) -> None:
        self.name = name
        self.bucket = MemoryBucket(objects, clock)
        bucket = cast("Bucket", self.bucket)
        self.lease = Lease(
            bucket=bucket, key="lease", holder=name, seconds=_SECONDS, patience=0, lock=directory / name, clock=clock
        )
        self.requests = FencedRequests(bucket=bucket, prefix="", lease=self.lease)
        self.entered = False
        self.head: str | None = None
        """The version of the head that it has read or written."""
        self.on_its_way: asyncio.Task[bool] | None = None


class Machines(RuleBasedStateMachine):
    """Three of them, one store, and a clock that only this sets."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._now = 1000.0
        self._objects: dict[str, bytes] = {}
        self._machines = [Machine(name, self._objects, lambda: self._now, Path(self._directory.name)) for name in "abc"]
        self._latest: Machine | None = None
        """Who has taken the lease last."""
        self._numbers = itertools.count()
        self._heads: list[bytes] = []
        """All that have been published, in their order."""

    def teardown(self) -> None:
        for machine in self._machines:
            if machine.on_its_way is not None:
                machine.on_its_way.cancel()
        self._runner.close()
        self._directory.cleanup()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - of any kind
        return self._runner.run(work)

    @rule(seconds=st.sampled_from([0.3, 4, 9, 19, 22]))
    def time_passes(self, seconds: float) -> None:
        self._now += seconds

    @rule(number=st.integers(0, 2))
    def takes_the_lease(self, number: int) -> None:
        machine = self._machines[number]
        if machine.entered:
            return
        try:
            self._run(machine.lease.enter())
        except RepositoryBusyError:
            assert self._latest is not None
            assert self._latest is not machine
            return
        machine.entered, self._latest = True, machine
        try:
            _, machine.head = self._run(machine.requests.look("head"))
        except ObjectMissingError:
            machine.head = None

    @rule(number=st.integers(0, 2))
    def gives_it_back(self, number: int) -> None:
        machine = self._machines[number]
        if machine.entered and machine.on_its_way is None:
            self._run(machine.lease.leave())
            machine.entered = False

    @rule(number=st.integers(0, 2), head=st.booleans())
    def writes(self, number: int, *, head: bool) -> None:
        machine = self._machines[number]
        if machine.entered and machine.on_its_way is None:
            self._run(self._write(machine, head=head))

    @rule(number=st.integers(0, 2), head=st.booleans())
    def sends(self, number: int, *, head: bool) -> None:
        machine = self._machines[number]
        if not machine.entered or machine.on_its_way is not None:
            return
        machine.bucket.gate = asyncio.Event()

        async def send() -> "asyncio.Task[bool]":
            sent = asyncio.ensure_future(self._write(machine, head=head))
            await asyncio.sleep(0)  # until it waits at the gate
            return sent

        machine.on_its_way = self._run(send())

    @rule(number=st.integers(0, 2))
    def what_was_sent_arrives(self, number: int) -> None:
        machine = self._machines[number]
        if machine.on_its_way is None or machine.bucket.gate is None:
            return
        machine.bucket.gate.set()
        self._run(_awaited(machine.on_its_way))
        machine.on_its_way = machine.bucket.gate = None

    async def _write(self, machine: Machine, *, head: bool) -> bool:
        content = b"%s %d" % (machine.name.encode(), next(self._numbers))
        before = self._objects.get("head")
        try:
            if head:
                before = None
                machine.head = await machine.requests.exchange("head", content, machine.head)
                self._heads.append(content)
            else:
                await machine.requests.replace("log", content)
        except OvertakenError:
            assert content not in self._objects.values()
            return False
        assert before is None or self._objects["head"] == before
        assert machine is self._latest, "somebody else has the lease"
        return True

    @invariant()
    def the_head_is_the_last_one_that_was_published(self) -> None:
        assert self._objects.get("head") == (self._heads[-1] if self._heads else None)


async def _awaited(work: Awaitable[object]) -> None:
    await work


TestMachines = Machines.TestCase
TestMachines.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
