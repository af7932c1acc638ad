"""Layer archives in a directory, over several calls."""

import asyncio
import fcntl
import hashlib
import json
import random
from pathlib import Path

import pytest
import pytest_asyncio

from harness.processes import wait_until
from tests.docker2cvmfs.conftest import Site
from tests.support.commands import Ended, docker2cvmfs, started_docker2cvmfs
from tests.support.oci import write_image
from tests.support.registry_faults import Fault, FaultyRegistry, changed, cut, stalled

pytestmark = pytest.mark.asyncio(loop_scope="session")

LAYER = random.Random(3).randbytes(4 << 20)  # noqa: S311 - of a test
DIGEST = hashlib.sha256(LAYER).hexdigest()
BLOB = f"GET .*/blobs/sha256:{DIGEST}"
ARRIVED = (5 << 20) // 2


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def image(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("pull") / "image"
    write_image(directory, [LAYER], tag="1")
    await site.registry.push(f"oci:{directory}:1", "pulled:1", "--preserve-digests")


def _named(directory: Path) -> tuple[Path, Path]:
    return directory / f"{DIGEST}.tar", directory / f".{DIGEST}.tar.part"


async def _pull(proxy: FaultyRegistry, directory: Path) -> Ended:
    return await docker2cvmfs("pull", "--insecure", f"{proxy.address}/pulled:1", directory, "--json")


async def test_a_killed_download_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    whole, partial = _named(tmp_path)
    async with FaultyRegistry.before(site.registry.address, Fault(BLOB, stalled(ARRIVED))) as proxy:
        async with started_docker2cvmfs("pull", "--insecure", f"{proxy.address}/pulled:1", tmp_path) as program:

            async def arrives() -> bool:
                return partial.exists() and partial.stat().st_size >= 1 << 20

            await wait_until(arrives, what="a megabyte arrives")
            program.kill()
            await program.wait()
        received = partial.stat().st_size

        ended = await _pull(proxy, tmp_path)

    assert ended.status == 0, ended.errors
    assert json.loads(ended.out)["layers"] == [str(whole)]
    assert whole.read_bytes() == LAYER
    assert not partial.exists()
    assert [headers.get("Range") for headers in proxy.seen(BLOB)] == [None, f"bytes={received}-"]
    assert f"resuming after {received:,} bytes" in ended.errors


async def test_a_failed_download_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    whole, partial = _named(tmp_path)
    faults = [Fault(BLOB, cut(ARRIVED)), *(Fault(BLOB, cut(0)) for _ in range(20))]
    async with FaultyRegistry.before(site.registry.address, *faults) as proxy:
        failed = await _pull(proxy, tmp_path)
        assert failed.status == 3
        assert partial.stat().st_size > 0
        proxy.faults.clear()
        assert (await _pull(proxy, tmp_path)).status == 0
        assert proxy.seen(BLOB)[-1]["Range"].startswith("bytes=")
    assert whole.read_bytes() == LAYER


@pytest.mark.parametrize("left", [b"x" * ARRIVED, LAYER[:-1] + b"x", LAYER + b"x"])
async def test_what_was_left_damaged_is_fetched_anew(site: Site, tmp_path: Path, left: bytes) -> None:
    whole, partial = _named(tmp_path)
    partial.write_bytes(left)
    async with FaultyRegistry.before(site.registry.address) as proxy:
        ended = await _pull(proxy, tmp_path)
    assert ended.status == 0, ended.errors
    assert whole.read_bytes() == LAYER
    assert list(tmp_path.iterdir()) == [whole]


async def test_what_was_left_whole_is_not_fetched(site: Site, tmp_path: Path) -> None:
    whole, partial = _named(tmp_path)
    partial.write_bytes(LAYER)
    async with FaultyRegistry.before(site.registry.address) as proxy:
        assert (await _pull(proxy, tmp_path)).status == 0
    assert whole.read_bytes() == LAYER
    assert proxy.seen(BLOB) == []


async def test_a_wrong_layer_leaves_nothing(site: Site, tmp_path: Path) -> None:
    fault = Fault(BLOB, changed(lambda body: body[:-1] + bytes([body[-1] ^ 1])))
    async with FaultyRegistry.before(site.registry.address, fault) as proxy:
        ended = await _pull(proxy, tmp_path)
    assert ended.status == 3
    assert "damaged or forged" in ended.errors
    assert list(tmp_path.iterdir()) == []


async def test_two_calls_do_not_write_one_file(site: Site, tmp_path: Path) -> None:
    whole, partial = _named(tmp_path)
    async with FaultyRegistry.before(site.registry.address) as proxy:
        with partial.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            ended = await _pull(proxy, tmp_path)
        assert (ended.status, whole.exists()) == (6, False)
        assert "another process is writing" in ended.errors
        both = await asyncio.gather(_pull(proxy, tmp_path), _pull(proxy, tmp_path))
    assert {ended.status for ended in both} <= {0, 6}
    assert whole.read_bytes() == LAYER
