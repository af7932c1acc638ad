"""A registry that misbehaves: every fault has its error, which names what is wrong, where, and what to do."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from harness.processes import wait_until
from services.common.digest import Digest
from services.registry import blobs, tags
from services.registry.client import RegistryClient
from services.registry.errors import (
    AccessDeniedError,
    AuthenticationError,
    DigestMismatchError,
    ImageMissingError,
    InsecureConnectionError,
    InvalidAnswerError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from tests.registry.conftest import LAYERS
from tests.support.registries import Authority, RegistryServer, impatient
from tests.support.registry_faults import (
    Effect,
    Fault,
    FaultyRegistry,
    answered,
    changed,
    cut,
    endless_pages,
    huge,
    redirected,
    refused,
    stalled,
    trickling,
    unranged,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

AMD64 = Platform.parse("linux/amd64")
LAYER = LAYERS[0]
DIGEST = Digest(hashlib.sha256(LAYER).hexdigest())
ALWAYS = 1000


def damaged(body: bytes) -> bytes:
    return body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]


def json_with(**fields: object) -> Callable[[bytes], bytes]:
    """Give the first layer of a manifest other fields."""

    def change(body: bytes) -> bytes:
        document = json.loads(body)
        document["layers"][0] |= fields
        return json.dumps(document).encode()

    return change


async def blob(client: RegistryClient, proxy: FaultyRegistry, *, size: int = len(LAYER)) -> bytes:
    reference = ImageReference.parse(f"{proxy.address}/layers:1")
    return b"".join([piece async for piece in client.blob(reference, DIGEST, size)])


async def manifest(client: RegistryClient, proxy: FaultyRegistry) -> None:
    await client.image(ImageReference.parse(f"{proxy.address}/layers:1"), AMD64)


@pytest.mark.parametrize(
    "faults",
    [
        [cut(100_000)],
        [cut(0), cut(100_000), cut(70_000)],
        [refused(429, retry_after="0")],
        [refused(500), refused(502)],
        [cut(100_000), refused(429, retry_after="1")],
    ],
)
async def test_a_download_goes_on_where_it_was_interrupted(
    client: RegistryClient, registry: RegistryServer, faults: list[Effect]
) -> None:
    async with FaultyRegistry.before(registry.address, *(Fault("GET .*/blobs/", effect) for effect in faults)) as proxy:
        assert await blob(client, proxy) == LAYER
    requests = proxy.seen("GET .*/blobs/")
    assert len(requests) == len(faults) + 1


@pytest.mark.parametrize("after", [100_000, 0])
async def test_a_download_goes_on_where_it_stalled(registry: RegistryServer, after: int) -> None:
    async with (
        FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", stalled(after))) as proxy,
        RegistryClient(options=impatient(read_timeout=2.0)) as client,
    ):
        assert await blob(client, proxy) == LAYER
    # On a busy machine an honest answer may be late as well.
    assert len(proxy.seen("GET .*/blobs/")) >= 2


async def test_a_resumed_download_asks_for_the_rest_only(client: RegistryClient, registry: RegistryServer) -> None:
    async with FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", cut(100_000))) as proxy:
        assert await blob(client, proxy) == LAYER
    assert [headers.get("Range") for headers in proxy.seen("GET .*/blobs/")] == [None, "bytes=100000-"]


async def test_a_server_that_sends_all_of_it_again_does_no_harm(
    client: RegistryClient, registry: RegistryServer
) -> None:
    faults = [cut(150_000), refused(503), unranged()]
    async with FaultyRegistry.before(registry.address, *(Fault("GET .*/blobs/", effect) for effect in faults)) as proxy:
        assert await blob(client, proxy) == LAYER
    assert [headers.get("Range") for headers in proxy.seen("/blobs/")] == [None, "bytes=150000-", "bytes=150000-"]


async def test_a_registry_that_cannot_begin_in_the_middle_is_asked_for_all_of_it(
    client: RegistryClient, registry: RegistryServer
) -> None:
    faults = [cut(150_000), refused(416), cut(250_000)]
    async with FaultyRegistry.before(registry.address, *(Fault("GET .*/blobs/", effect) for effect in faults)) as proxy:
        assert await blob(client, proxy) == LAYER
    assert [headers.get("Range") for headers in proxy.seen("/blobs/")] == [None, "bytes=150000-", None, None]


async def test_progress_is_no_failure(client: RegistryClient, registry: RegistryServer) -> None:
    """Three attempts are made, and more connections than that are broken, each after some progress."""
    async with FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", cut(70_000), times=4)) as proxy:
        assert await blob(client, proxy) == LAYER


@pytest.mark.parametrize(
    ("effect", "kind", "said"),
    [
        (changed(damaged), DigestMismatchError, "has the digest sha256:.*damaged or forged: push the image anew"),
        (
            changed(lambda body: body[:-1]),
            DigestMismatchError,
            f"has {len(LAYER) - 1} bytes, its image names {len(LAYER)}",
        ),
        (changed(lambda body: body + b"x"), DigestMismatchError, f"has {len(LAYER) + 1} bytes"),
        (cut(1000), RegistryUnavailableError, "the connection to .* broke: .*: try again later"),
        (refused(500), RegistryUnavailableError, "failing or overloaded .HTTP 500 MADEUP: made up.: try again later"),
        (refused(429), RegistryUnavailableError, "too many requests .HTTP 429"),
        (refused(401), AuthenticationError, "docker login there again|cannot be used"),
        (refused(403), AccessDeniedError, "does not allow it .HTTP 403 MADEUP: made up.: ask for the right"),
        (refused(418), RegistryRefusedError, "refused .HTTP 418 MADEUP"),
        (refused(416), InvalidAnswerError, "answers with HTTP 416"),
        (redirected("{path}"), InvalidAnswerError, "more than 5 redirects"),
        (redirected("ftp://a.b/"), InvalidAnswerError, "sends to no address that can be asked"),
        (redirected("http://user:sesame@a.b/"), InvalidAnswerError, "sends to no address that can be asked"),
        (redirected("http://127.0.0.1:1/?sesame"), RegistryUnavailableError, "127.0.0.1:1 cannot be reached"),
    ],
)
async def test_a_blob_that_cannot_be_had_says_why(
    client: RegistryClient, registry: RegistryServer, effect: Effect, kind: type[RegistryError], said: str
) -> None:
    async with FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", effect, times=ALWAYS)) as proxy:
        with pytest.raises(RegistryError, match=said) as caught:
            await blob(client, proxy)
    if "401" not in said and "login" not in said:
        assert type(caught.value) is kind
    assert "layers:1" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert len(proxy.requests) < 10


@pytest.mark.parametrize(("ask", "path"), [(blob, "blobs"), (manifest, "manifests")])
async def test_a_registry_that_sends_nothing_more_is_given_up(
    registry: RegistryServer, ask: Callable[[RegistryClient, FaultyRegistry], Awaitable[object]], path: str
) -> None:
    async with (
        FaultyRegistry.before(registry.address, Fault(f"GET .*/{path}/", stalled(10), times=ALWAYS)) as proxy,
        RegistryClient(options=impatient(read_timeout=0.5)) as client,
    ):
        with pytest.raises(RegistryUnavailableError, match=r"layers:1.* sent nothing for too long: try again later"):
            await ask(client, proxy)


async def test_content_that_changed_while_it_was_interrupted_is_refused(
    client: RegistryClient, registry: RegistryServer
) -> None:
    faults = (
        Fault("GET .*/blobs/", cut(100_000)),
        Fault("GET .*/blobs/", unranged(lambda body: damaged(body[::-1])[::-1])),
    )
    async with FaultyRegistry.before(registry.address, *faults) as proxy:
        with pytest.raises(DigestMismatchError, match=r"has the digest sha256:.*damaged or forged"):
            await blob(client, proxy)


async def test_the_wrong_part_is_refused(client: RegistryClient, registry: RegistryServer) -> None:
    faults = (
        Fault("GET .*/blobs/", cut(100_000)),
        Fault("GET .*/blobs/", changed(damaged, Content_Range="bytes 5-9/10")),
    )
    async with FaultyRegistry.before(registry.address, *faults) as proxy:
        with pytest.raises(InvalidAnswerError, match=r"from 100000 on.*answers with HTTP 206 and 'bytes 5-9/10'"):
            await blob(client, proxy)


async def test_a_size_that_is_not_the_blobs_is_refused(client: RegistryClient, registry: RegistryServer) -> None:
    async with FaultyRegistry.before(registry.address) as proxy:
        with pytest.raises(DigestMismatchError, match=f"has {len(LAYER)} bytes, its image names 7"):
            await blob(client, proxy, size=7)


async def test_a_body_without_an_end_is_left(client: RegistryClient, registry: RegistryServer) -> None:
    fault = Fault("GET .*/blobs/", huge(100 << 20, declared=False))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(DigestMismatchError, match=f"has more than the {len(LAYER)} bytes"):
            await blob(client, proxy)
        assert proxy.sent < 30 << 20


async def test_a_trickle_is_given_up(registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_START", 0.3)
    async with (
        RegistryClient(options=impatient(slowest=10_000_000, read_timeout=5.0)) as client,
        FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", trickling(100), times=ALWAYS)) as proxy,
    ):
        with pytest.raises(
            RegistryUnavailableError, match=rf"of {len(LAYER)} bytes in \d+ s is too slow: try again later"
        ):
            await blob(client, proxy)
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("effect", "kind", "said"),
    [
        (changed(lambda body: body + b" "), DigestMismatchError, "the registry says sha256:.*damaged or forged"),
        (
            changed(lambda _: b"<html>", Docker_Content_Digest=""),
            InvalidAnswerError,
            "is not JSON: .*push the image anew",
        ),
        (
            changed(json_with(size=-1), Docker_Content_Digest=""),
            InvalidAnswerError,
            "layers.0.size: .*greater than or eq",
        ),
        (changed(json_with(size=1 << 62), Docker_Content_Digest=""), InvalidAnswerError, "layers.0.size: .*less than"),
        (changed(json_with(digest="sha256:x"), Docker_Content_Digest=""), InvalidAnswerError, "layers.0.digest: "),
        (huge(100 << 20, declared=True), InvalidAnswerError, "has more than 4194304 bytes, which is no honest one"),
        (huge(100 << 20, declared=False), InvalidAnswerError, "has more than 4194304 bytes, which is no honest one"),
        (cut(10), RegistryUnavailableError, "the connection to .* broke"),
        (refused(500), RegistryUnavailableError, "HTTP 500 MADEUP"),
        (refused(429, retry_after="3600"), RegistryUnavailableError, "too many requests .*: try again in 3600 s"),
        (redirected("{path}"), InvalidAnswerError, "more than 5 redirects"),
    ],
)
async def test_a_manifest_that_cannot_be_had_says_why(
    client: RegistryClient, registry: RegistryServer, effect: Effect, kind: type[RegistryError], said: str
) -> None:
    async with FaultyRegistry.before(registry.address, Fault("GET .*/manifests/", effect, times=ALWAYS)) as proxy:
        with pytest.raises(RegistryError, match=said) as caught:
            await manifest(client, proxy)
        assert proxy.sent < 30 << 20
    assert type(caught.value) is kind
    assert "layers:1" in str(caught.value)


async def test_a_manifest_of_another_digest_is_refused(client: RegistryClient, registry: RegistryServer) -> None:
    true = await client.manifest(ImageReference.parse(f"{registry.address}/layers:1"))
    fault = Fault("GET .*/manifests/", changed(lambda body: body + b" ", Docker_Content_Digest=""))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        reference = ImageReference.parse(f"{proxy.address}/layers@{true.digest.oci}")
        with pytest.raises(DigestMismatchError, match=f"was asked for {true.digest.oci}"):
            await client.manifest(reference)


@pytest.mark.parametrize("dated", [False, True])
async def test_the_registry_says_how_long_to_wait(
    client: RegistryClient, registry: RegistryServer, *, dated: bool
) -> None:
    began = time.monotonic()
    # A date has whole seconds, so that one two seconds from now is at least one away.
    told = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if dated else "1"
    fault = Fault("GET .*/manifests/", refused(429, retry_after=told))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        await manifest(client, proxy)
        assert time.monotonic() - began > 0.9
    assert len(proxy.seen("GET .*/manifests/")) == 2


@pytest.mark.parametrize(
    "told",
    [
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wed Oct 21 07:28:00 2015",
        "Wed, 21 Oct 2015 07:28:61 GMT",
        "Wed, 21 Oct 2015 07:28:00 +99999999999999",
        "soon",
        "-1",
    ],
)
async def test_a_time_to_wait_that_is_over_or_none_is_no_obstacle(
    client: RegistryClient, registry: RegistryServer, told: str
) -> None:
    fault = Fault("GET .*/manifests/", refused(503, retry_after=told))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        await manifest(client, proxy)
    assert len(proxy.seen("GET .*/manifests/")) == 2


async def test_a_date_that_is_too_far_away_is_not_waited_for(client: RegistryClient, registry: RegistryServer) -> None:
    fault = Fault("GET .*/manifests/", refused(503, retry_after="Fri, 31 Dec 9999 23:59:59 GMT"))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(RegistryUnavailableError, match=r"try again in [0-9]{12} s"):
            await manifest(client, proxy)
    assert len(proxy.seen("GET .*/manifests/")) == 1


@pytest.mark.parametrize(
    ("new", "said"), [(True, "more than 100 pages: the registry lists without end"), (False, "brought nothing new")]
)
async def test_tags_without_an_end_are_given_up(
    client: RegistryClient, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, *, new: bool, said: str
) -> None:
    monkeypatch.setattr(tags, "_PAGES", 100)
    async with FaultyRegistry.before(
        registry.address, Fault("/tags/list", endless_pages(new=new), times=ALWAYS)
    ) as proxy:
        reference = ImageReference.parse(f"{proxy.address}/layers:nothing")
        with pytest.raises(InvalidAnswerError, match=rf"listing the tags of .*{said}"):
            await client.tags(reference)
        assert len(proxy.requests) <= 101
        with pytest.raises(ImageMissingError, match=r"layers:nothing: .*MANIFEST_UNKNOWN"):
            await client.manifest(reference)


async def test_a_redirect_away_from_tls_is_refused(registry: RegistryServer, authority: Authority) -> None:
    fault = Fault("GET .*/blobs/", redirected(f"http://{registry.address}{{path}}?sesame"))
    certificate = await authority.issue("faulty")
    async with (
        FaultyRegistry.before(registry.address, fault, tls=certificate) as proxy,
        RegistryClient(options=impatient(insecure=False, ca_file=authority.certificate)) as client,
    ):
        with pytest.raises(InsecureConnectionError, match="away from TLS: it is not followed") as caught:
            await blob(client, proxy)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("matches", "effect"),
    [
        ("POST .*/uploads/", refused(500)),
        ("PUT .*/uploads/", refused(503, retry_after="0")),
        ("PUT .*/manifests/", refused(429, retry_after="0")),
        ("HEAD ", refused(502)),
        ("PUT .*/manifests/", answered(202)),
        ("PUT .*/uploads/", answered(204)),
    ],
)
async def test_a_push_succeeds_whatever_passes(
    client: RegistryClient, registry: RegistryServer, matches: str, effect: Effect
) -> None:
    content = f"{matches} {id(effect)}".encode()
    async with FaultyRegistry.before(registry.address, Fault(matches, effect)) as proxy:
        # The same once more, so that the registry has no other tags for other tests.
        reference = ImageReference.parse(f"{proxy.address}/layers:1")
        image = await client.image(reference, AMD64)
        digest = await client.push_blob(reference, content)
        assert await client.push_manifest(reference, image.manifest, image.manifest_media_type) == image.manifest_digest
        pieces = [piece async for piece in client.blob(reference, digest, len(content))]
    assert b"".join(pieces) == content
    assert proxy.faults[0].times == 0


async def test_a_push_that_was_stored_as_something_else_is_told(
    client: RegistryClient, registry: RegistryServer
) -> None:
    fault = Fault("PUT .*/uploads/", changed(bytes, Docker_Content_Digest=f"sha256:{'a' * 64}"))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(DigestMismatchError, match=r"the registry has stored sha256:aaaa.* instead: push it again"):
            await client.push_blob(ImageReference.parse(f"{proxy.address}/layers:x"), b"something new")


async def test_a_message_is_shown_without_control_characters(client: RegistryClient, registry: RegistryServer) -> None:
    fault = Fault("GET ", refused(403, text="\x1b[2Jhello\nworld" + "x" * 1000))
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(AccessDeniedError, match=r"MADEUP: \?\[2Jhello\?world") as caught:
            await manifest(client, proxy)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


async def test_a_download_that_is_left_early_leaves_nothing(client: RegistryClient, registry: RegistryServer) -> None:
    async with FaultyRegistry.before(registry.address, Fault("GET .*/blobs/", stalled(100_000))) as proxy:
        task = asyncio.create_task(blob(client, proxy))
        await wait_until(lambda: seen(proxy), what="the request arrives")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await blob(client, proxy) == LAYER


async def seen(proxy: FaultyRegistry) -> bool:
    return bool(proxy.requests)
