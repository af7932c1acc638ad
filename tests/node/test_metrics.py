"""What a node counts, and what it tells of itself."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from harness.ports import free_ports
from harness.processes import wait_until
from services.common.archive.compression import write_archive
from services.common.descriptor import LayerUrl
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.node.errors import LayerNotPublishedError, RepositoryError
from services.node.local_copies import LocalCopy
from services.node.metrics import NodeMetrics, Outcome
from services.node.monitoring import Monitoring
from services.node.state import NodeState
from services.node.state_reader import NodeStateReader
from tests.node.conftest import Core
from tests.support.fuse import served, stop
from tests.support.metrics import ask, counted, samples, shown
from tests.support.repositories import Repository

REPOSITORY = 'repository="test.example.org"'


def _reader(core: Core) -> NodeStateReader:
    return NodeStateReader(copies=core.copies, finder=core.finder, repositories=core.repositories, io=core.io)


async def _shown(core: Core) -> dict[str, float]:
    return dict(samples(core.metrics.render(await _reader(core).read()).decode()))


def _counts(core: Core, name: str) -> dict[str, float]:
    return dict(counted(samples(core.metrics.render(None).decode()), name))


async def test_how_something_ends_is_counted() -> None:
    metrics = NodeMetrics()
    with metrics.operations.one("Get"):
        pass
    with metrics.operations.one("Get") as course:
        course.outcome = Outcome.REFUSED
    with pytest.raises(ValueError, match="x"), metrics.operations.one("Get"):
        raise ValueError("x")

    def decline() -> None:
        with metrics.operations.one("Get") as course:
            course.outcome = Outcome.DECLINED
            raise ValueError("y")

    with pytest.raises(ValueError, match="y"):
        decline()
    values = samples(metrics.render(None).decode())
    assert counted(values, "thin_node_operations_total") == {
        f'{{method="Get",outcome="{outcome}"}}': 1 for outcome in ("ok", "refused", "failed", "declined")
    }
    assert values['thin_node_operations_seconds_count{method="Get"}'] == 4


async def test_what_has_not_ended_shows_and_who_gives_up_is_no_failure() -> None:
    metrics = NodeMetrics()
    begun = asyncio.Event()

    async def work() -> None:
        with metrics.uploads.one():
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    assert samples(metrics.render(None).decode())["thin_node_uploads_under_way"] == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    values = samples(metrics.render(None).decode())
    assert values["thin_node_uploads_under_way"] == 0
    assert counted(values, "thin_node_uploads_total") == {'{outcome="cancelled"}': 1}


async def test_looks_and_waits(core: Core, repository: Repository) -> None:
    there, missing = repository.publish("there"), repository.url("missing")
    await core.finder.wait([there], holder="x", timeout=0)
    assert _counts(core, "thin_node_repository_looks_total") == {f'{{outcome="ok",{REPOSITORY}}}': 1}
    assert _counts(core, "thin_node_publication_waits_total") == {}
    with pytest.raises(LayerNotPublishedError):
        await core.finder.wait([there, missing], holder="x", timeout=0)
    assert _counts(core, "thin_node_publication_waits_total") == {f'{{outcome="failed",{REPOSITORY}}}': 1}
    waiting = asyncio.create_task(core.finder.wait([missing], holder="x", timeout=60))

    async def waits() -> bool:
        return _counts(core, "thin_node_publication_waits_under_way") == {f"{{{REPOSITORY}}}": 1}

    await wait_until(waits, what="the wait is counted")
    repository.publish("missing")
    await waiting
    assert _counts(core, "thin_node_publication_waits_total") == {
        f'{{outcome="{outcome}",{REPOSITORY}}}': 1 for outcome in ("ok", "failed")
    }
    assert _counts(core, "thin_node_publication_waits_seconds_count") == {f"{{{REPOSITORY}}}": 2}


async def test_what_an_image_says_is_no_label(core: Core, cvmfs_root: Path) -> None:
    foreign = Repository(cvmfs_root, "foreign.example.org")
    with pytest.raises(RepositoryError, match="not among those allowed"):
        await core.finder.wait([foreign.publish("x")], holder="x", timeout=0)
    assert "foreign" not in core.metrics.render(await _reader(core).read()).decode()


async def test_what_has_never_failed_shows_so_that_the_first_failure_is_an_increase(core: Core) -> None:
    values = await _shown(core)
    assert values['thin_node_uploads_total{outcome="failed"}'] == 0
    for series in ("repository_looks", "publication_waits"):
        assert values[f'thin_node_{series}_total{{outcome="failed",{REPOSITORY}}}'] == 0


async def test_repositories_that_are_allowed_show_before_they_are_used(core: Core, repository: Repository) -> None:
    await core.finder.wait([repository.publish("there")], holder="x", timeout=0)
    values = await _shown(core)
    assert {name: values[f'thin_node_repository_users{{repository="{name}"}}'] for name in core.allowed} == {
        "test.example.org": 1,
        "other.example.org": 0,
    }


async def test_a_repository_that_hangs_shows_at_once(core: Core, cvmfs_root: Path, tmp_path: Path) -> None:
    source = Repository(tmp_path / "source")
    url = source.publish("one")
    with served(source.root, cvmfs_root / "test.example.org") as client:
        stop(client.pid)
        with pytest.raises(RepositoryError, match="does not answer within"):
            await core.finder.wait([url], holder="x", timeout=0)
        values = await _shown(core)
    assert values[f"thin_node_repository_mounted{{{REPOSITORY}}}"] == 1
    assert values['thin_node_repository_mounted{repository="other.example.org"}'] == 0
    assert values[f"thin_node_repository_hung_lookups{{{REPOSITORY}}}"] == 1
    assert counted(values, "thin_node_repository_looks_total") == {f'{{outcome="failed",{REPOSITORY}}}': 1}


async def test_what_waits_for_its_publication(core: Core, tmp_path: Path) -> None:
    values = await _shown(core)
    assert (values["thin_node_local_copies"], values["thin_node_oldest_local_copy_seconds"]) == (0, 0)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(bytes(50_000))
    began = time.time()
    archive = write_archive(tmp_path / "tree", core.copies.new_spool() / "new")
    url = LayerUrl.of(RepositoryName("test.example.org"), archive.digest, LayerLayout.FLAT)
    core.copies.keep(LocalCopy(archive, url))
    values = await _shown(core)
    assert values["thin_node_local_copies"] == 1
    assert values["thin_node_local_copies_bytes"] == archive.size
    assert 0 <= values["thin_node_oldest_local_copy_seconds"] <= time.time() - began + 1
    await core.copies.tree(archive.digest, holder="x")
    values = await _shown(core)
    assert values["thin_node_local_copies_bytes"] == archive.size + archive.uncompressed_size


async def test_a_node_without_an_engine_lives() -> None:
    async def state() -> NodeState | None:
        return None

    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    async with Monitoring(metrics=NodeMetrics(), state=state).serve(address, setting="SETTING"):
        assert await ask(address, "/healthz") == {"status": "alive", "initialised": False}
        assert (await shown(address))["thin_node_initialised"] == 0


async def test_a_node_that_serves_an_engine(core: Core, home: Path) -> None:
    place = home / "metrics.sock"
    monitoring = Monitoring(metrics=core.metrics, state=_reader(core).read)
    async with monitoring.serve(str(place), setting="SETTING"):
        document = await ask(place, "/healthz")
        assert (await shown(place))["thin_node_initialised"] == 1
    assert json.dumps(document) == json.dumps(
        {
            "status": "alive",
            "initialised": True,
            "local_copies": 0,
            "repositories": {name: {"users": 0, "mounted": False, "hung_lookups": 0} for name in sorted(core.allowed)},
        }
    )
    assert not place.exists()
