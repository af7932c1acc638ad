"""What a command that is ended leaves behind, and what people see of one that runs."""

import asyncio
import hashlib
import os
import random
import re
import signal

import pytest
import pytest_asyncio

from harness.processes import wait_until
from harness.s3 import s3_client
from tests.docker2cvmfs.conftest import LAYERS, Site
from tests.support.commands import started_docker2cvmfs
from tests.support.oci import write_image
from tests.support.publisher import REPOSITORY
from tests.support.registry_faults import Fault, FaultyRegistry, stalled

pytestmark = pytest.mark.asyncio(loop_scope="session")

LAYER = random.Random(5).randbytes(13 << 20)  # noqa: S311 - of a test
DIGEST = hashlib.sha256(LAYER).hexdigest()
KEY = f"sha256/{DIGEST}"
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours, and movements of the cursor."""
_CURSOR_HIDDEN, _CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def image(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("interrupted") / "image"
    write_image(directory, [LAYER], tag="1")
    await site.registry.push(f"oci:{directory}:1", "interrupted:1", "--preserve-digests")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_publication_that_is_ended_leaves_nothing(site: Site, number: signal.Signals, status: int) -> None:
    fault = Fault(f"GET .*/blobs/sha256:{DIGEST}", stalled(12 << 20))
    async with (
        FaultyRegistry.before(site.registry.address, fault) as proxy,
        s3_client(site.access) as client,
        started_docker2cvmfs(
            *("publish", "--insecure", f"{proxy.address}/interrupted:1", REPOSITORY, "--no-wait"),
            env=site.access.environment,
        ) as program,
    ):

        async def uploads() -> list[str]:
            answer = await client.list_multipart_uploads(Bucket=site.access.bucket)
            return [upload["UploadId"] for upload in answer.get("Uploads", []) if upload["Key"] == KEY]

        async def has_parts() -> bool:
            for upload in await uploads():
                listed = await client.list_parts(Bucket=site.access.bucket, Key=KEY, UploadId=upload)
                return len(listed.get("Parts", [])) == 2
            return False

        await wait_until(has_parts, what="two parts are uploaded")
        program.send_signal(number)
        _, errors = await program.communicate()

        assert program.returncode == status, errors.decode()
        assert await uploads() == []
        objects = await client.list_objects_v2(Bucket=site.access.bucket, Prefix=KEY)
        assert objects.get("Contents", []) == []
    assert "Traceback" not in errors.decode()


async def test_a_terminal_shows_a_bar_for_every_layer_and_how_far_it_is(site: Site) -> None:
    digests = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]
    master, terminal = os.openpty()
    try:
        arguments = ("publish", "--insecure", site.image, REPOSITORY, "--publisher", site.publisher.url)
        environment = {**site.access.environment, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
        async with started_docker2cvmfs(*arguments, env=environment, terminal=terminal) as program:
            os.close(terminal)
            shown = asyncio.create_task(asyncio.to_thread(_read_all, master))
            await site.announce(*digests)
            out, _ = await program.communicate()
            text = await shown
    finally:
        os.close(master)

    assert program.returncode == 0, text
    lines = [line for line in _CONTROLS.sub("", text).splitlines() if line.strip()]
    last = lines[-len(set(digests)) :]
    assert {line.split()[0] for line in last} == {digest[:12] for digest in digests}
    assert all("━" in line and "published" in line for line in last)
    assert b"all are published" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_terminal_is_left_as_it_was(site: Site, number: signal.Signals) -> None:
    """Also one that is too narrow for the bars."""
    master, terminal = os.openpty()
    fault = Fault(f"GET .*/blobs/sha256:{DIGEST}", stalled(12 << 20))
    environment = {**site.access.environment, "TERM": "xterm", "COLUMNS": "20", "LINES": "5"}
    try:
        async with (
            FaultyRegistry.before(site.registry.address, fault) as proxy,
            started_docker2cvmfs(
                *("publish", "--insecure", f"{proxy.address}/interrupted:1", REPOSITORY, "--no-wait"),
                env=environment,
                terminal=terminal,
            ) as program,
        ):
            os.close(terminal)
            shown = asyncio.create_task(asyncio.to_thread(_read_all, master))

            async def transfers() -> bool:
                return bool(proxy.seen(f"GET .*/blobs/sha256:{DIGEST}"))

            await wait_until(transfers, what="the layer is asked for")
            program.send_signal(number)
            await program.communicate()
            text = await shown
    finally:
        os.close(master)
    assert program.returncode == 128 + number, text
    assert text.rfind(_CURSOR_HIDDEN) < text.rfind(_CURSOR_SHOWN)
    assert "Traceback" not in text


def _read_all(master: int) -> str:
    content = b""
    try:
        while piece := os.read(master, 65536):
            content += piece
    except OSError:
        pass  # what a terminal's master gives when nobody has the other end any more
    return content.decode()
