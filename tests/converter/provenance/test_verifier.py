"""Images that the real cosign has signed satisfy a policy; nothing else does, and why is told."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import web

from services.converter.model import SignaturePolicy, VerificationKey
from services.converter.provenance.errors import (
    DamagedSignatureError,
    ForeignSignatureError,
    PolicyError,
    ProvenanceError,
    ProvenanceUnknownError,
    SignatureMissingError,
    UntrustedSignatureError,
)
from services.converter.provenance.model import Storage, Verified
from services.converter.provenance.verifier import Verifier
from services.registry.client import RegistryClient
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.reference import ImageReference
from tests.converter.provenance.conftest import NewImage, described
from tests.support.cosign import Cosign, policy
from tests.support.registries import RegistryServer, run_program
from tests.support.registry_faults import Effect, Fault, FaultyRegistry, answered, changed, cut, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

Change = Callable[[bytes], bytes]

_NOW = 1_800_000_000.0


async def _verify(client: RegistryClient, reference: ImageReference, wanted: SignaturePolicy) -> Verified:
    assert reference.digest is not None
    return await Verifier(now=lambda: _NOW).verify(client, reference, reference.digest, wanted)


def _undigested(change: Change) -> Effect:
    """Change a body, and leave out the digest that the registry says it has."""
    return changed(change, Docker_Content_Digest="")


def _found(change: Change, **headers: str) -> Effect:
    """Answer with this, where the registry has nothing."""
    effect = changed(change, Content_Type=INDEX_TYPES[0], **headers)

    async def succeeding(proxy: FaultyRegistry, request: web.Request) -> web.StreamResponse:
        response = await effect(proxy, request)
        response.set_status(200)
        return response

    return succeeding


def _at(proxy: FaultyRegistry, reference: ImageReference) -> ImageReference:
    there = ImageReference.parse(f"{proxy.address}/{reference.repository}:1")
    return replace(there, digest=reference.digest)


def _edited(path: str, value: object) -> Change:
    def change(body: bytes) -> bytes:
        document = json.loads(body)
        place = document
        *parents, last = path.split("/")
        for part in parents:
            place = place[int(part) if part.isdigit() else part]
        place[last] = value
        return json.dumps(document).encode()

    return change


async def test_an_image_that_is_signed_is_verified_and_by_what_is_told(
    client: RegistryClient, cosign: Cosign, new_image: NewImage, registry: RegistryServer
) -> None:
    reference, image = await new_image("signed/tag")
    await cosign.sign(image, "good")
    verified = await _verify(client, reference, policy(cosign.key("other"), cosign.key("good")))
    signature = await client.manifest(replace(reference, tag=f"sha256-{reference.digest}.sig", digest=None))
    public, der = cosign.directory / "good.pub", cosign.directory / "good.der"
    await run_program("openssl", "pkey", "-pubin", "-in", str(public), "-outform", "DER", "-out", str(der))
    fingerprint = hashlib.sha256(der.read_bytes()).hexdigest()
    assert verified.document() == {
        "policy": "signed",
        "key": "good",
        "fingerprint": f"sha256:{fingerprint}",
        "storage": "tag",
        "signature": signature.digest.oci,
        "identity": f"{registry.address}/signed/tag",
        "digest": f"sha256:{reference.digest}",
        "verified_at": "2027-01-15T08:00:00+00:00",
    }
    assert json.loads(json.dumps(verified.document())) == verified.document()


async def test_a_signature_may_be_a_referrer(client: RegistryClient, cosign: Cosign, new_image: NewImage) -> None:
    reference, image = await new_image("signed/referrer")
    await cosign.sign_as_referrer(image, "other")
    await cosign.sign_as_referrer(image, "good")
    verified = await _verify(client, reference, policy(cosign.key("good")))
    assert (verified.storage, verified.key) == (Storage.REFERRER, "good")
    # A bad one under the tag changes nothing about a good one elsewhere.
    await cosign.sign(image, "other")
    assert (await _verify(client, reference, policy(cosign.key("good")))).storage is Storage.REFERRER


async def test_a_signature_is_found_by_the_registrys_api_where_it_has_one(
    registry: RegistryServer, client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    reference, image = await new_image("signed/api")
    await cosign.sign_as_referrer(image, "good")
    index = await client.manifest(replace(reference, tag=f"sha256-{reference.digest}", digest=None))
    listed = [json.loads(index.content)["manifests"][0]]
    empty = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": []}).encode()
    page = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": listed}).encode()
    following = f'</v2/signed/api/referrers/sha256:{reference.digest}?next=1>; rel="next"'
    api = [
        Fault("GET .*/referrers/", _found(lambda _: empty, Link=following)),
        Fault("GET .*/referrers/", _found(lambda _: page)),
    ]
    async with FaultyRegistry.before(registry.address, *api) as proxy:
        asked = replace(ImageReference.parse(f"{proxy.address}/signed/api:1"), digest=reference.digest)
        wanted = policy(cosign.key("good"), identities=(f"{registry.address}/*",))
        assert (await _verify(client, asked, wanted)).storage is Storage.REFERRER
        assert len(proxy.seen("/referrers/")) == 2
        assert proxy.seen(f"/manifests/sha256-{reference.digest}$") == []


async def test_keys_of_other_kinds_verify(client: RegistryClient, cosign: Cosign, new_image: NewImage) -> None:
    reference, image = await new_image("signed/kinds")
    ed25519 = await cosign.make_ed25519_key("ed25519")
    with pytest.raises(SignatureMissingError):
        await _verify(client, reference, policy(ed25519))
    await cosign.sign(image, "ed25519")
    rsa = await cosign.sign_with_rsa(image, "rsa")
    for key in (ed25519, rsa):
        assert (await _verify(client, reference, policy(key))).key == key.name


async def test_an_index_is_verified_itself_and_not_what_it_names(
    client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    child, child_image = await new_image("signed/index")
    manifest = await client.manifest(child)
    entry = {"mediaType": MANIFEST_TYPES[0], "digest": manifest.digest.oci, "size": len(manifest.content)}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [entry]}
    tagged = replace(child, tag="multi", digest=None)
    await client.push_manifest(tagged, json.dumps(index).encode(), INDEX_TYPES[0])
    reference, image = await described(client, tagged)
    await cosign.sign(child_image, "good")
    with pytest.raises(SignatureMissingError):
        await _verify(client, reference, policy(cosign.key("good")))
    await cosign.sign(image, "good")
    assert (await _verify(client, reference, policy(cosign.key("good")))).digest == reference.digest


async def test_an_unsigned_image_is_refused_and_what_to_do_is_told(
    client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    reference, image = await new_image("unsigned/tool")
    with pytest.raises(SignatureMissingError) as refused_:
        await _verify(client, reference, policy(cosign.key("good"), cosign.key("other")))
    assert str(refused_.value) == (
        f"{image} has no signature, and the policy signed (wishes.yaml:3:5) wants one by good, other: "
        f"sign it: cosign sign --key KEY {image}"
    )
    assert not refused_.value.retryable


async def test_an_image_that_somebody_else_signed_is_refused(
    client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    reference, image = await new_image("signed/other")
    await cosign.sign(image, "other")
    with pytest.raises(UntrustedSignatureError, match=r"by none of the keys of the policy signed .* which are good:"):
        await _verify(client, reference, policy(cosign.key("good")))


async def test_a_copy_with_its_signature_is_refused_although_cosign_verifies_it(
    client: RegistryClient, cosign: Cosign, new_image: NewImage, registry: RegistryServer
) -> None:
    original, image = await new_image("original/tool")
    await cosign.sign(image, "good")
    signatures = f"sha256-{original.digest}.sig"
    for tag in ("1", signatures):
        source = f"docker://{registry.address}/original/tool:{tag}"
        await registry.push(source, f"copied/tool:{tag}", "--src-tls-verify=false")
    reference, copy = await described(client, ImageReference.parse(f"{registry.address}/copied/tool:1"))
    await cosign.verify(copy, "good")
    with pytest.raises(ForeignSignatureError, match=f"for an image of '{registry.address}/original/tool' .by good"):
        await _verify(client, reference, policy(cosign.key("good")))
    for allowed in (f"{registry.address}/original/tool", "*/original/*"):
        verified = await _verify(client, reference, policy(cosign.key("good"), identities=(allowed,)))
        assert verified.identity == f"{registry.address}/original/tool"
    with pytest.raises(ForeignSignatureError):
        await _verify(client, reference, policy(cosign.key("good"), identities=(f"{registry.address}/copied/*",)))


async def test_the_signature_of_another_image_is_refused(
    client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    old, old_image = await new_image("moved/tool")
    await cosign.sign(old_image, "good")
    signatures = await client.manifest(replace(old, tag=f"sha256-{old.digest}.sig", digest=None))
    other = json.loads((await client.manifest(old)).content)
    other["annotations"] = {"made": "by somebody else"}
    tagged = replace(old, tag="2", digest=None)
    await client.push_manifest(tagged, json.dumps(other).encode(), MANIFEST_TYPES[0])
    new, _ = await described(client, tagged)
    await client.push_manifest(
        replace(new, tag=f"sha256-{new.digest}.sig", digest=None), signatures.content, signatures.media_type
    )
    with pytest.raises(ForeignSignatureError, match=f"one for sha256:{old.digest} .by good"):
        await _verify(client, new, policy(cosign.key("good")))


async def test_a_signature_under_another_name_is_refused(
    client: RegistryClient, cosign: Cosign, new_image: NewImage, registry: RegistryServer
) -> None:
    reference, image = await new_image("named/tool")
    for name in ("quay.io/named/tool", "not a name"):
        await cosign.sign(image, "good", f"--sign-container-identity={name}")
    with pytest.raises(ForeignSignatureError):
        await _verify(client, reference, policy(cosign.key("good")))
    # Podman and skopeo sign under the whole name.
    await cosign.sign(image, "good", f"--sign-container-identity={registry.address}/named/tool:1")
    assert (await _verify(client, reference, policy(cosign.key("good")))).identity.endswith("/named/tool:1")


async def test_what_is_signed_for_docker_hub_is_its_under_all_of_its_names(
    client: RegistryClient, cosign: Cosign, new_image: NewImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, image = await new_image("library/fedora")
    await cosign.sign(image, "good", "--sign-container-identity=index.docker.io/library/fedora")
    hub = ImageReference.parse("docker.io/library/fedora:1")
    read, content = client.artifact, client.content

    def here(asked: ImageReference) -> ImageReference:
        return replace(asked, host=reference.host, port=reference.port)

    monkeypatch.setattr(client, "artifact", lambda asked: read(here(asked)))
    monkeypatch.setattr(client, "content", lambda asked, digest, size: content(here(asked), digest, size))
    assert reference.digest is not None
    verified = await Verifier().verify(client, hub, reference.digest, policy(cosign.key("good")))
    assert verified.identity == "index.docker.io/library/fedora"


async def test_one_good_signature_among_a_hundred_is_found(
    client: RegistryClient, cosign: Cosign, new_image: NewImage
) -> None:
    reference, image = await new_image("many/tool")
    await cosign.sign(image, "other")
    tag = replace(reference, tag=f"sha256-{reference.digest}.sig", digest=None)
    document = json.loads((await client.manifest(tag)).content)
    document["layers"] *= 100
    await client.push_manifest(tag, json.dumps(document).encode(), MANIFEST_TYPES[0])
    await cosign.sign(image, "good")
    document = json.loads((await client.manifest(tag)).content)
    assert len(document["layers"]) == 101
    assert (await _verify(client, reference, policy(cosign.key("good")))).key == "good"
    document["layers"] = document["layers"][:100] * 3 + document["layers"][-1:]
    await client.push_manifest(tag, json.dumps(document).encode(), MANIFEST_TYPES[0])
    with pytest.raises(UntrustedSignatureError):
        await _verify(client, reference, policy(cosign.key("good")))


async def test_bundles_are_told_of(client: RegistryClient, cosign: Cosign, new_image: NewImage) -> None:
    reference, _ = await new_image("bundle/tool")
    manifest = await client.manifest(reference)
    entry = {"mediaType": MANIFEST_TYPES[0], "digest": manifest.digest.oci, "size": len(manifest.content)}
    bundle = entry | {"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [bundle, entry]}
    referrers = replace(reference, tag=f"sha256-{reference.digest}", digest=None)
    await client.push_manifest(referrers, json.dumps(index).encode(), INDEX_TYPES[0])
    with pytest.raises(SignatureMissingError, match=r"no signature but 1 Sigstore bundles, .* --new-bundle"):
        await _verify(client, reference, policy(cosign.key("good")))


_ANNOTATION = "layers/0/annotations"
_SIGNATURE = {"dev.cosignproject.cosign/signature": "MEUCIQ=="}


@pytest.mark.parametrize(
    ("matches", "change"),
    [
        ("/blobs/", lambda body: body.replace(b'"optional"', b'"Optional"')),
        ("/blobs/", lambda body: body[:-1]),
        ("/blobs/", lambda body: body + b" "),
        (r"/manifests/.*\.sig", _edited("layers", 7)),
        (r"/manifests/.*\.sig", _edited(_ANNOTATION, {})),
        (r"/manifests/.*\.sig", _edited(_ANNOTATION, {"dev.cosignproject.cosign/signature": "no base64!"})),
        (r"/manifests/.*\.sig", _edited(_ANNOTATION, {"dev.cosignproject.cosign/signature": "A" * 5000})),
        (r"/manifests/.*\.sig", _edited("layers/0/size", 1 << 30)),
        (r"/manifests/.*\.sig", _edited("layers/0/digest", f"sha256:{'00' * 32}")),
    ],
)
async def test_what_has_been_changed_is_refused(
    signed: tuple[ImageReference, RegistryServer, VerificationKey], client: RegistryClient, matches: str, change: Change
) -> None:
    reference, registry, key = signed
    async with FaultyRegistry.before(
        registry.address, Fault(f"GET .*{matches}", _undigested(change), times=100)
    ) as proxy:
        with pytest.raises(DamagedSignatureError, match="cannot be read"):
            await _verify(client, _at(proxy, reference), policy(key, identities=("*",)))


async def test_a_signature_that_is_none_is_refused(
    signed: tuple[ImageReference, RegistryServer, VerificationKey], client: RegistryClient
) -> None:
    reference, registry, key = signed
    fault = Fault(r"GET .*/manifests/.*\.sig", _undigested(_edited(_ANNOTATION, _SIGNATURE)), times=100)
    async with FaultyRegistry.before(registry.address, fault) as proxy:
        with pytest.raises(UntrustedSignatureError):
            await _verify(client, _at(proxy, reference), policy(key, identities=("*",)))


_SIGNATURES = r"/manifests/.*\.sig"
_INDEX = "/manifests/sha256-[0-9a-f]{64}$"


@pytest.mark.parametrize(
    ("matches", "effect"),
    [
        (_SIGNATURES, refused(500)),
        (_SIGNATURES, refused(401)),
        (_SIGNATURES, answered(404)),
        (_SIGNATURES, cut(10)),
        (_SIGNATURES, _undigested(lambda _: b"<html>")),
        ("/blobs/", refused(403)),
        ("/blobs/", cut(10)),
        ("/referrers/", refused(403)),
        ("/referrers/", refused(429, retry_after="600")),
        ("/referrers/", _found(lambda _: b"<html>")),
        (_INDEX, refused(401)),
        (_INDEX, refused(503, retry_after="600")),
    ],
)
async def test_a_registry_that_fails_proves_nothing(
    signed: tuple[ImageReference, RegistryServer, VerificationKey],
    client: RegistryClient,
    matches: str,
    effect: Effect,
) -> None:
    reference, registry, key = signed
    # What refers to the image is asked for where there is nothing better.
    identities = ("*",) if matches in (_SIGNATURES, "/blobs/") else ("nothing",)
    async with FaultyRegistry.before(registry.address, Fault(f"GET .*{matches}", effect, times=100)) as proxy:
        with pytest.raises(ProvenanceUnknownError, match="not known, since the registry fails") as told:
            await _verify(client, _at(proxy, reference), policy(key, identities=identities))
        assert told.value.retryable


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (b"", "is no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no public key"),
        (b"private", "is no public key"),
    ],
)
async def test_a_policy_with_a_key_that_is_none_lets_nothing_pass(
    signed: tuple[ImageReference, RegistryServer, VerificationKey], client: RegistryClient, pem: bytes, told: str
) -> None:
    reference, _, key = signed
    with pytest.raises(PolicyError, match=told):
        await _verify(client, reference, policy(key, VerificationKey(name="bad", pem=pem)))


async def test_every_refusal_has_a_word_of_its_own() -> None:
    words = [error.word for error in ProvenanceError.__subclasses__()]
    assert len(set(words)) == len(words) == 6
