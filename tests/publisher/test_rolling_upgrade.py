"""A site is brought to a later release while its publishers work, and none of them stops for it."""

import asyncio
import itertools
from pathlib import Path

from harness.commands import Completed
from harness.postgresql import PostgresqlServer
from harness.s3 import S3Access
from services.publisher.journal.version import VERSION
from tests.support.later import LaterRelease
from tests.support.publisher import PublisherProcess, make_layer, upload

_EXPANDING = (
    VERSION,
    (
        'op.execute("ALTER TABLE layers ADD COLUMN later TEXT")',
        "with op.get_context().autocommit_block():",
        '    op.execute("SET lock_timeout = 0")',
        '    op.execute("DROP INDEX CONCURRENTLY IF EXISTS layers_later")',
        '    op.execute("CREATE INDEX CONCURRENTLY layers_later ON layers (later)")',
    ),
)
"""A version that this release's publishers may go on with."""
_CONTRACTING = (VERSION + 1, ('op.execute("ALTER TABLE layers DROP COLUMN later")',))
"""One that they may not go on with; it stands for one that takes away what they write."""


async def test_a_site_is_upgraded_while_it_publishes(
    postgresql: PostgresqlServer, new_database: str, bucket: S3Access, tmp_path: Path
) -> None:
    settings = {
        "PUBLISHER_DATABASE": new_database,
        "PUBLISHER_DATABASE_PASSWORD_FILE": str(postgresql.password_file),
        "PUBLISHER_DIRECTORY": str(tmp_path / "repository"),
        "PUBLISHER_SWEEP_INTERVAL": "0.2",
    }
    expanding = LaterRelease(tmp_path / "expanding", _EXPANDING)
    contracting = LaterRelease(tmp_path / "contracting", _EXPANDING, _CONTRACTING)
    old = PublisherProcess(tmp_path / "old", bucket, settings)
    new = expanding.publisher(PublisherProcess(tmp_path / "new", bucket, settings))
    numbers = itertools.count()

    async def publish(publisher: PublisherProcess) -> None:
        layer = make_layer(tmp_path, f"layer {next(numbers)}")
        await upload(bucket, layer)
        await publisher.published(layer)

    async def migrate(release: LaterRelease) -> Completed:
        while True:
            done = await release.migrate(old.environment)
            # On a machine that is very busy, a publisher's change may take longer than a version waits for it.
            if "its tables are in use" not in done.complaint:
                return done

    async def go_on_publishing() -> None:
        while True:
            await publish(old)

    async with old.ended(), new.ended():
        await old.start()
        async with asyncio.TaskGroup() as group:
            working = group.create_task(go_on_publishing())
            done = await migrate(expanding)
            assert f"was brought from version {VERSION} to {VERSION + 1}" in done.text, done
            await new.start()
            refused = await migrate(contracting)
            assert refused.returncode == 1
            assert f"publishers of version {VERSION} are connected, which could not work with that" in refused.complaint
            await publish(old)
            working.cancel()
        assert '"level": "error"' not in old.daemon.log.read_text()
        assert await old.daemon.stop() == 0, old.daemon.tail()

        await publish(new)
        done = await migrate(contracting)
        assert f"was brought from version {VERSION + 1} to {VERSION + 2}" in done.text, done
        await old.refused(f"has version {VERSION + 2}, which publishers from version {VERSION + 1} on may work with")
        await publish(new)
        assert await new.daemon.stop() == 0, new.daemon.tail()
