"""The set-up of MinIO, by a stand-in that checks what MinIO checks, and of a real S3 server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from minio.notificationconfig import NotificationConfig
from minio.xml import unmarshal

from harness.commands import Completed, run
from harness.s3 import s3_client
from harness.seaweedfs import SeaweedFS
from services.common.object_store.settings import ObjectStoreSettings
from services.setup.__main__ import set_up
from services.setup.errors import SetupError
from services.setup.settings import SetupSettings
from services.setup.store import StoreBusyError
from tests.support.minio import MinioStandIn

UPLOADER, AGENT = "uploader-access-key", "agent-access-key"
_KEY = f"layers/sha256/{'a' * 64}"


@pytest.fixture
async def minio() -> AsyncIterator[MinioStandIn]:
    async with MinioStandIn.listen() as server:
        yield server


def _settings(**changes: str) -> SetupSettings:
    return SetupSettings.model_validate(
        {
            "uploader_access_key": UPLOADER,
            "uploader_secret_key": "uploader-secret-key",
            "agent_access_key": AGENT,
            "agent_secret_key": "agent-secret-key",
            **changes,
        }
    )


def _store(url: str, admin: tuple[str, str], **changes: str) -> ObjectStoreSettings:
    return ObjectStoreSettings.model_validate(
        {"endpoint": url, "access_key": admin[0], "secret_key": admin[1], **changes}
    )


async def _set_up_minio(minio: MinioStandIn, **changes: str) -> None:
    await asyncio.to_thread(set_up, _settings(**changes), _store(minio.url, minio.admin))


async def _run(minio: MinioStandIn, url: str, **variables: str) -> Completed:
    """Run the program to its end."""
    environment = {
        "LAYER_STORE_ENDPOINT": url,
        "LAYER_STORE_ACCESS_KEY": minio.admin[0],
        "LAYER_STORE_SECRET_KEY": minio.admin[1],
        "SETUP_UPLOADER_ACCESS_KEY": UPLOADER,
        "SETUP_UPLOADER_SECRET_KEY": "uploader-secret-key",
        "SETUP_AGENT_ACCESS_KEY": AGENT,
        "SETUP_AGENT_SECRET_KEY": "agent-secret-key",
        **variables,
    }
    return await run(sys.executable, "-m", "services.setup", env=environment, accept=(0, 1), timeout=300)


async def test_bucket_users_and_notification_are_made(minio: MinioStandIn) -> None:
    await _set_up_minio(minio)
    assert minio.users == {UPLOADER: "uploader-secret-key", AGENT: "agent-secret-key"}
    (queue,) = unmarshal(NotificationConfig, minio.buckets["layers"]).queue_config_list
    assert (queue.queue, queue.events) == ("arn:minio:sqs::PUBLISHER:webhook", ["s3:ObjectCreated:*"])
    assert queue.prefix_filter_rule is not None
    assert queue.prefix_filter_rule.value == "sha256/"


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        (UPLOADER, {"s3:PutObject", "s3:AbortMultipartUpload", "s3:GetObject"}),
        (
            AGENT,
            {
                *("s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),
                *("s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"),
            },
        ),
    ],
)
async def test_each_user_may_do_its_part_and_nothing_else(minio: MinioStandIn, user: str, allowed: set[str]) -> None:
    await _set_up_minio(minio)
    on_objects = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:PutObjectTagging"}
    on_bucket = {"s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads", "s3:PutBucketPolicy"}
    found = {action for action in on_objects if minio.allows(user, action, f"arn:aws:s3:::{_KEY}")}
    found |= {action for action in on_bucket if minio.allows(user, action, "arn:aws:s3:::layers")}
    assert found == allowed
    elsewhere = ("arn:aws:s3:::layers/other/object", "arn:aws:s3:::layers-too/sha256/x", "arn:aws:s3:::other")
    assert [
        place for place in elsewhere for action in on_objects | on_bucket if minio.allows(user, action, place)
    ] == []


async def test_a_repositorys_bucket_is_everybodys_to_read_and_the_agents_to_write(minio: MinioStandIn) -> None:
    await _set_up_minio(minio, repository_bucket="cvmfs")
    assert minio.buckets.keys() == {"layers", "cvmfs"}
    (policy,) = minio.public.values()
    assert policy["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["*"]},
            "Action": ["s3:GetObject"],
            "Resource": ["arn:aws:s3:::cvmfs/*"],
        }
    ]
    assert minio.public.keys() == {"cvmfs"}
    for action, place in (
        ("s3:PutObject", "cvmfs/images.example.org/.cvmfspublished"),
        ("s3:DeleteObject", "cvmfs/images.example.org/data/00/11"),
        ("s3:ListBucket", "cvmfs"),
    ):
        assert minio.allows(AGENT, action, f"arn:aws:s3:::{place}")
        assert not minio.allows(UPLOADER, action, f"arn:aws:s3:::{place}")
    assert not minio.allows(AGENT, "s3:PutObject", f"arn:aws:s3:::{_KEY}")


async def test_the_layers_bucket_is_not_made_everybodys(minio: MinioStandIn) -> None:
    with pytest.raises(SetupError, match="layers is the bucket of the layers"):
        await _set_up_minio(minio, repository_bucket="layers")
    assert minio.changes == []


async def test_everything_can_be_done_again(minio: MinioStandIn) -> None:
    await _set_up_minio(minio)
    before = (dict(minio.buckets), dict(minio.users), dict(minio.attached))
    minio.changes.clear()
    await _set_up_minio(minio)
    assert (minio.buckets, minio.users, minio.attached) == before
    assert set(minio.changes) == {"add-canned-policy", "add-user", "set-user-or-group-policy"}


async def test_a_new_secret_key_takes_the_place_of_the_old_one(minio: MinioStandIn) -> None:
    await _set_up_minio(minio)
    await _set_up_minio(minio, agent_secret_key="another-secret-key")
    assert minio.users[AGENT] == "another-secret-key"


async def test_notifications_of_others_stay(minio: MinioStandIn) -> None:
    minio.webhooks = ("PUBLISHER", "OTHERS")
    other = (
        "<NotificationConfiguration><QueueConfiguration><Id>others</Id><Queue>arn:minio:sqs::OTHERS:webhook</Queue>"
        "<Event>s3:ObjectRemoved:*</Event></QueueConfiguration></NotificationConfiguration>"
    )
    minio.buckets["layers"] = other
    await _set_up_minio(minio)
    await _set_up_minio(minio)
    queues = unmarshal(NotificationConfig, minio.buckets["layers"]).queue_config_list
    assert [queue.config_id for queue in queues] == ["others", "thin-image-layers"]


async def test_a_wrong_key_is_refused(minio: MinioStandIn) -> None:
    wrong = _store(minio.url, (minio.admin[0], "wrong-secret-key"))
    with pytest.raises(SetupError, match=f"making the bucket layers: {minio.url}/ refused with status 403") as caught:
        await asyncio.to_thread(set_up, _settings(), wrong)
    # Trying again would end the same.
    assert not isinstance(caught.value, StoreBusyError)
    assert minio.changes == []


async def test_a_webhook_that_minio_does_not_have_is_named(minio: MinioStandIn) -> None:
    with pytest.raises(SetupError, match=r"notification to the webhook MISSING: .* destination ARN does not exist"):
        await _set_up_minio(minio, webhook="MISSING")


async def test_of_another_store_the_bucket_is_made(seaweedfs: SeaweedFS) -> None:
    access = replace(seaweedfs.access, bucket="made-by-set-up")
    keys = {"access_key": access.access_key, "secret_key": access.secret_key}
    users = {f"{user}_{name}": value for user in ("uploader", "agent") for name, value in keys.items()}
    for _ in range(2):
        await asyncio.to_thread(set_up, _settings(store="s3", **users), access.settings)
    async with s3_client(access) as client:
        assert await client.head_bucket(Bucket=access.bucket)


async def test_of_another_store_a_user_who_cannot_use_the_bucket_is_named(seaweedfs: SeaweedFS) -> None:
    with pytest.raises(SetupError, match=r"looking for a layer as the user uploader: .* refused with status 403"):
        await asyncio.to_thread(set_up, _settings(store="s3"), seaweedfs.access.settings)


async def test_the_program_waits_for_a_store_that_starts(minio: MinioStandIn) -> None:
    minio.unready = 3
    ended = await _run(minio, minio.url, SETUP_LOG_LEVEL="debug", SETUP_LOG_FORMAT="json")
    assert ended.returncode == 0
    assert minio.unready == 0
    events = [json.loads(line)["event"] for line in ended.complaint.splitlines()]
    assert [event for event in events if event in {"bucket made", "user made", "notification set"}] == [
        "bucket made",
        "user made",
        "user made",
        "notification set",
    ]
    secrets = (minio.admin[1], "uploader-secret-key", "agent-secret-key")
    assert [secret for secret in secrets if secret in ended.complaint] == []


async def test_the_program_names_a_store_that_does_not_come(minio: MinioStandIn) -> None:
    ended = await _run(minio, "http://127.0.0.1:9", SETUP_PATIENCE="0.5")
    assert ended.returncode == 1
    assert "the set-up failed: making the bucket layers: http://127.0.0.1:9/ does not answer" in ended.complaint


def test_help_names_every_setting() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "services.setup", "--help"], capture_output=True, text=True, check=True
    )
    assert "SETUP_UPLOADER_SECRET_KEY" in ended.stdout
    assert "LAYER_STORE_ENDPOINT" in ended.stdout
