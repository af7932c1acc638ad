"""The users' policies allow what the services do, and no more: shown at Ceph, which judges by the same documents."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from botocore.exceptions import ClientError
from pydantic import SecretStr

from harness.ceph import CephRGW
from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive
from services.common.layout import sidecar_path
from services.common.object_store.model import key_of
from services.common.object_store.store import ObjectStore
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource
from services.repository.native.trust.keyring import KeyFiles
from services.setup.errors import SetupError
from services.setup.policies import Policy, agent_policy, public_policy, uploader_policy
from services.setup.store import Administrator, StoreUser
from tests.common.object_store.conftest import store_settings
from tests.support.bucket_site import BucketSite
from tests.support.native import NATIVE_NAME, publish
from tests.support.object_stores import new_bucket
from tests.support.publisher import REPOSITORY, make_layer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Users:
    """Three users of one bucket."""

    owner: S3Access
    uploader: S3Access
    agent: S3Access


def _statements(policy: Policy, user: str) -> list[dict[str, object]]:
    """Make of a user's policy a part of a bucket's."""
    return [statement | {"Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]}} for statement in _of(policy)]


def _of(policy: Policy) -> list[dict[str, object]]:
    statements: Any = policy["Statement"]
    return list(statements)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def users(ceph: CephRGW) -> AsyncIterator[Users]:
    async with new_bucket(ceph.access) as owner:
        async with s3_client(owner) as client:
            policy = {
                "Version": "2012-10-17",
                "Statement": [
                    *_statements(uploader_policy(owner.bucket), "uploader"),
                    *_statements(agent_policy(owner.bucket), "agent"),
                ],
            }
            await client.put_bucket_policy(Bucket=owner.bucket, Policy=json.dumps(policy))
        made = [replace(await ceph.create_user(name), bucket=owner.bucket) for name in ("uploader", "agent")]
        yield Users(owner, *made)


async def test_the_uploader_can_upload_in_one_piece_and_in_parts(users: Users, tmp_path: Path) -> None:
    small = make_layer(tmp_path, "small")
    large = make_layer(tmp_path, "large", {"random": uuid.uuid4().bytes + (tmp_path / "small.tar.zst").read_bytes()})
    async with ObjectStore(settings=store_settings(users.uploader, multipart_threshold=1)) as store:
        assert await store.upload(large, repository=REPOSITORY)
        assert not await store.upload(large, repository=REPOSITORY)
    async with ObjectStore(settings=store_settings(users.uploader)) as store:
        assert await store.upload(small, repository=REPOSITORY)
        assert await store.head(small.digest) is not None


async def test_the_agent_can_do_what_the_publisher_does(users: Users, tmp_path: Path) -> None:
    layer = make_layer(tmp_path, "published")
    async with ObjectStore(settings=store_settings(users.uploader)) as store:
        await store.upload(layer, repository=REPOSITORY)
    async with ObjectStore(settings=store_settings(users.agent)) as store:
        await store.check()
        assert layer.digest in [found.digest async for found in store.list_layers()]
        await store.download(layer.digest, tmp_path / "copy")
        async with s3_client(users.uploader) as client:
            await client.create_multipart_upload(Bucket=users.agent.bucket, Key=f"sha256/{'c' * 64}")
        assert await store.abort_abandoned_uploads(timedelta(0)) == 1
    async with s3_client(users.agent) as client:
        await client.delete_object(Bucket=users.agent.bucket, Key=key_of(layer.digest))


async def test_the_agent_publishes_to_a_repository_that_everybody_reads(
    ceph: CephRGW, users: Users, tmp_path: Path
) -> None:
    layer = make_layer(tmp_path, "in a repository")
    async with new_bucket(ceph.access) as owner:
        # A bucket's policy may speak of that bucket only.
        statements = [
            *(one for one in _statements(agent_policy("layers", owner.bucket), "agent") if owner.bucket in str(one)),
            *_of(public_policy(owner.bucket)),
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        async with s3_client(owner) as client:
            await client.put_bucket_policy(Bucket=owner.bucket, Policy=json.dumps(policy))
        site = BucketSite(
            access=replace(users.agent, bucket=owner.bucket),
            keys=KeyFiles(tmp_path / "keys", NATIVE_NAME),
            state=tmp_path / "state",
        )
        await asyncio.to_thread(site.create)
        async with site.opened() as repository:
            await publish(repository, layer)
        assert await asyncio.to_thread(_visible, f"{owner.endpoint}/{owner.bucket}/{site.prefix}", site, layer)


def _visible(url: str, site: BucketSite, layer: LayerArchive) -> bool:
    """Whether somebody without credentials sees a layer."""
    source = HttpSource(url)
    with RepositoryReader(source, name=NATIVE_NAME, master_keys=[site.keys.public.read_bytes()]) as reader:
        return reader.newest(reader.head()).stat(f"/{sidecar_path(layer.digest)}".encode()) is not None


async def _listing(client: Any, bucket: str) -> None:  # noqa: ANN401 - botocore's clients have no static type
    await client.list_objects_v2(Bucket=bucket)


async def _deletion(client: Any, bucket: str) -> None:  # noqa: ANN401
    await client.delete_object(Bucket=bucket, Key=f"sha256/{'a' * 64}")


async def _upload(client: Any, bucket: str) -> None:  # noqa: ANN401
    await client.put_object(Bucket=bucket, Key=f"sha256/{'b' * 64}", Body=b"")


async def _upload_elsewhere(client: Any, bucket: str) -> None:  # noqa: ANN401
    await client.put_object(Bucket=bucket, Key="elsewhere", Body=b"")


@pytest.mark.parametrize(
    ("user", "action"),
    [
        ("uploader", _listing),
        ("uploader", _deletion),
        ("uploader", _upload_elsewhere),
        ("agent", _upload),
        ("agent", _upload_elsewhere),
    ],
)
async def test_nobody_can_do_more(
    users: Users, user: str, action: Callable[[Any, str], Coroutine[Any, Any, None]]
) -> None:
    access: S3Access = getattr(users, user)
    async with s3_client(access) as client:
        with pytest.raises(ClientError) as caught:
            await action(client, access.bucket)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


async def test_the_set_up_finds_both_users_able(users: Users) -> None:
    administrator = Administrator(users.owner.settings)
    uploader, agent = (
        StoreUser(name=name, access_key=access.settings.access_key, secret_key=access.settings.secret_key)
        for name, access in (("uploader", users.uploader), ("agent", users.agent))
    )
    await asyncio.to_thread(administrator.check_keys, uploader)
    await asyncio.to_thread(administrator.check_keys, agent)
    await asyncio.to_thread(administrator.check_listing, agent)


async def test_the_set_up_names_a_user_whose_secret_key_is_wrong(users: Users) -> None:
    wrong = StoreUser(
        name="uploader", access_key=users.uploader.settings.access_key, secret_key=SecretStr("wrong-secret-key")
    )
    with pytest.raises(SetupError, match=r"as the user uploader: .* status 403: SignatureDoesNotMatch"):
        await asyncio.to_thread(Administrator(users.owner.settings).check_keys, wrong)
