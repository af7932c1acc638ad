"""A publisher whose journal others may share says in each line of its log, and to whoever asks, which one it is."""

import json
from pathlib import Path

from harness.postgresql import PostgresqlServer
from harness.processes import wait_until
from harness.s3 import S3Access
from tests.support.publisher import PublisherProcess


async def test_a_publisher_has_a_name(
    postgresql: PostgresqlServer, new_database: str, bucket: S3Access, tmp_path: Path
) -> None:
    settings = {
        "PUBLISHER_DATABASE": new_database,
        "PUBLISHER_DATABASE_PASSWORD_FILE": str(postgresql.password_file),
        "PUBLISHER_NAME": "stratum0-a",
    }
    publisher = PublisherProcess(tmp_path / "publisher", bucket, settings)
    async with publisher.running():

        async def leads() -> bool:
            (alone,) = (await publisher.get("/v1/status"))["publishers"]
            assert alone["name"] == "stratum0-a"
            return bool(alone["standing"] == "leading")

        await wait_until(leads, what="it is known that the publisher leads")
    lines = [json.loads(line) for line in publisher.daemon.log.read_text().splitlines()]
    assert lines
    assert {line.get("instance") for line in lines} == {"stratum0-a"}
