"""Users, passwords, tokens and certificates against Debian's docker-registry."""

import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.registry.client import RegistryClient
from services.registry.credentials import DockerCredentials
from services.registry.errors import AccessDeniedError, AuthenticationError, InsecureConnectionError
from services.registry.options import RegistryOptions
from services.registry.platform import Platform
from services.registry.reference import ImageReference
from tests.registry.conftest import LAYERS
from tests.support.oci import write_image
from tests.support.registries import PASSWORD, USER, Authority, RegistryServer, impatient
from tests.support.registry_faults import Fault, FaultyRegistry, challenged, redirected, refused
from tests.support.token_server import IDENTITY_TOKEN, SERVICE, TokenServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

AMD64 = Platform.parse("linux/amd64")
KEPT = "--preserve-digests"
BROKEN = ["basicConstraints=critical,CA:FALSE"]
"""Extensions of an authority that nothing it signs is trusted for."""
if sys.version_info >= (3, 13):
    BROKEN.append("basicConstraints=critical,CA:TRUE")  # and no usage of its key
CREDS = f"--dest-creds={USER}:{PASSWORD}"


def known(directory: Path, host: str, *, password: str = PASSWORD, **fields: str) -> DockerCredentials:
    entry = fields or {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    (directory / "config.json").write_text(json.dumps({"auths": {host: entry}}))
    return DockerCredentials(path=directory / "config.json")


async def use(client: RegistryClient, name: str) -> None:
    """Read an image whole, and write it."""
    image = await client.image(ImageReference.parse(name), AMD64)
    content = [piece async for piece in client.blob(image.reference, image.layers[0].digest, image.layers[0].size)]
    assert b"".join(content) == LAYERS[0]
    await client.push_blob(image.reference, b"new")
    await client.push_manifest(image.reference, image.manifest, image.manifest_media_type)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("image")
    write_image(directory / "image", LAYERS)
    return f"oci:{directory / 'image'}:latest"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def locked(
    authority: Authority, image: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RegistryServer]:
    """A registry of TLS and passwords."""
    certificate = await authority.issue("locked")
    directory = tmp_path_factory.mktemp("locked") / "server"
    async with RegistryServer.run(directory, certificate=certificate, htpasswd=True) as server:
        await server.push(image, "x:1", CREDS, KEPT)
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tokens(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TokenServer]:
    async with TokenServer.run(tmp_path_factory.mktemp("tokens") / "server") as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    tokens: TokenServer, image: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RegistryServer]:
    """A registry that wants tokens."""
    directory = tmp_path_factory.mktemp("guarded") / "server"
    async with RegistryServer.run(directory, token=tokens.registry_settings) as server:
        await server.push(image, "x:1", CREDS, KEPT)
        await server.push(image, "public:1", CREDS, KEPT)
        yield server


@pytest.fixture(autouse=True)
def _forget(tokens: TokenServer) -> None:
    tokens.requests.clear()
    tokens.scopes.clear()
    tokens.lifetime = 300


async def test_a_private_authority_is_trusted_where_it_is_named(
    authority: Authority, locked: RegistryServer, tmp_path: Path
) -> None:
    credentials = known(tmp_path, locked.address)
    options = impatient(insecure=False, ca_file=authority.certificate, credentials=credentials)
    async with RegistryClient(options=options) as client:
        await use(client, f"{locked.address}/x:1")


async def test_an_unknown_authority_is_refused(locked: RegistryServer) -> None:
    async with RegistryClient(options=impatient(insecure=False)) as client:
        with pytest.raises(InsecureConnectionError, match=r"certificate of .* cannot be trusted.*with --ca-file"):
            await client.manifest(ImageReference.parse(f"{locked.address}/x:1"))


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_authority_that_may_not_sign_is_told_from_one_that_is_not_named(tmp_path: Path, broken: str) -> None:
    authority = await Authority.make(tmp_path / "authority", broken)
    options = impatient(insecure=False, ca_file=authority.certificate)
    async with (
        RegistryServer.run(tmp_path / "server", certificate=await authority.issue("server")) as server,
        RegistryClient(options=options) as client,
    ):
        with pytest.raises(InsecureConnectionError, match=r"cannot be trusted: .*CA.*: --ca-file does not help"):
            await client.manifest(ImageReference.parse(f"{server.address}/x:1"))


async def test_plain_http_is_said(registry: RegistryServer, locked: RegistryServer) -> None:
    async with RegistryClient(options=impatient(insecure=False)) as client:
        with pytest.raises(InsecureConnectionError, match="needs --insecure"):
            await client.manifest(ImageReference.parse(f"{registry.address}/layers:1"))
    async with RegistryClient(options=impatient()) as client:
        with pytest.raises(Exception, match="leave out --insecure"):
            await client.manifest(ImageReference.parse(f"{locked.address}/x:1"))


async def test_a_broken_certificate_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(InsecureConnectionError, match=r"certificates in .*ca.pem cannot be read"):
        async with RegistryClient(options=impatient(ca_file=tmp_path / "ca.pem")):
            pass


async def test_a_password_is_wanted(authority: Authority, locked: RegistryServer, tmp_path: Path) -> None:
    options = impatient(insecure=False, ca_file=authority.certificate)
    async with RegistryClient(options=options) as client:
        with pytest.raises(AuthenticationError, match=f"wants to know the user: docker login {locked.address}"):
            await client.manifest(ImageReference.parse(f"{locked.address}/x:1"))
    wrong = known(tmp_path, locked.address, password="sesame")
    async with RegistryClient(
        options=impatient(insecure=False, ca_file=authority.certificate, credentials=wrong)
    ) as client:
        with pytest.raises(AuthenticationError, match="does not accept the user") as caught:
            await client.manifest(ImageReference.parse(f"{locked.address}/x:1"))
        assert "sesame" not in str(caught.value)


async def test_a_token_is_fetched_with_the_password_once(
    guarded: RegistryServer, tokens: TokenServer, tmp_path: Path
) -> None:
    options = impatient(credentials=known(tmp_path, guarded.address))
    async with RegistryClient(options=options) as client:
        await use(client, f"{guarded.address}/x:1")
    assert tokens.requests == ["GET basic"] * 2
    # The registry names the actions in any order.
    assert [set(scope.removeprefix("repository:x:").split(",")) for scope in tokens.scopes] == [
        {"pull"},
        {"pull", "push"},
    ]


async def test_a_token_is_fetched_with_the_identity_token(
    guarded: RegistryServer, tokens: TokenServer, tmp_path: Path
) -> None:
    options = impatient(credentials=known(tmp_path, guarded.address, identitytoken=IDENTITY_TOKEN))
    async with RegistryClient(options=options) as client:
        await use(client, f"{guarded.address}/x:1")
    assert set(tokens.requests) == {"POST refresh_token"}


async def test_public_images_need_no_user(guarded: RegistryServer, tokens: TokenServer, client: RegistryClient) -> None:
    await client.image(ImageReference.parse(f"{guarded.address}/public:1"), AMD64)
    assert tokens.requests == ["GET anonymous"]
    with pytest.raises(AuthenticationError, match="does not accept the user"):
        await client.manifest(ImageReference.parse(f"{guarded.address}/x:1"))


@pytest.mark.parametrize(
    "challenges",
    [
        ('Basic realm="a, b=c"', "Bearer {parameters}"),
        ('Basic realm="a, b=c", Bearer {parameters}',),
        ('Bearer {parameters}, Basic realm="a", charset="UTF-8"',),
        ("Negotiate, Bearer {parameters}",),
        ("Negotiate dG9rZW4=, bearer  {parameters}",),
    ],
)
async def test_of_several_challenges_the_one_for_tokens_is_answered(
    guarded: RegistryServer, tokens: TokenServer, client: RegistryClient, challenges: tuple[str, ...]
) -> None:
    # The server of the realm has a query of its own, which stays.
    parameters = f'realm="{tokens.url}?account=a%2Fb", service="{SERVICE}", scope="repository:public:pull"'
    effect = challenged(*(challenge.format(parameters=parameters) for challenge in challenges))
    async with FaultyRegistry.before(guarded.address, Fault("GET .*/manifests/", effect)) as proxy:
        await client.manifest(ImageReference.parse(f"{proxy.address}/public:1"))
    assert tokens.scopes == ["repository:public:pull"]
    assert len(proxy.seen("GET .*/manifests/")) == 2


async def test_every_scope_of_a_challenge_is_an_entry_of_the_query(
    guarded: RegistryServer, tokens: TokenServer, client: RegistryClient
) -> None:
    scope = "repository:public:pull repository:x:pull"
    effect = challenged(f'Bearer realm="{tokens.url}",service="{SERVICE}",scope="{scope}"')
    async with FaultyRegistry.before(guarded.address, Fault("GET .*/manifests/", effect)) as proxy:
        await client.manifest(ImageReference.parse(f"{proxy.address}/public:1"))
    assert tokens.scopes == scope.split()


@pytest.mark.parametrize("fields", [{}, {"identitytoken": "sesame"}])
async def test_a_user_that_the_token_server_does_not_accept_is_told(
    guarded: RegistryServer, tmp_path: Path, fields: dict[str, str]
) -> None:
    credentials = known(tmp_path, guarded.address, password="sesame", **fields)
    async with RegistryClient(options=impatient(credentials=credentials)) as client:
        with pytest.raises(
            AuthenticationError,
            match=f"does not accept .* of .*/config.json, auths of .*: docker login {guarded.address}",
        ) as caught:
            await client.manifest(ImageReference.parse(f"{guarded.address}/x:1"))
    assert "sesame" not in str(caught.value)


async def test_a_token_that_expired_is_fetched_anew(
    guarded: RegistryServer, tokens: TokenServer, tmp_path: Path
) -> None:
    async with RegistryClient(options=impatient(credentials=known(tmp_path, guarded.address))) as client:
        reference = ImageReference.parse(f"{guarded.address}/x:1")
        tokens.lifetime = -120
        with pytest.raises(AuthenticationError):
            await client.manifest(reference)
        tokens.lifetime = 300
        await client.manifest(reference)


async def test_a_token_server_without_tls_gets_no_password(
    authority: Authority, tokens: TokenServer, guarded: RegistryServer, tmp_path: Path
) -> None:
    async with FaultyRegistry.before(guarded.address, tls=await authority.issue("proxy")) as proxy:
        credentials = known(tmp_path, proxy.address)
        options = impatient(insecure=False, ca_file=authority.certificate, credentials=credentials)
        async with RegistryClient(options=options) as client:
            with pytest.raises(InsecureConnectionError, match="its token server needs TLS"):
                await client.manifest(ImageReference.parse(f"{proxy.address}/x:1"))
    assert tokens.requests == []


async def test_storage_elsewhere_gets_no_token(
    registry: RegistryServer, guarded: RegistryServer, tmp_path: Path
) -> None:
    async with (
        FaultyRegistry.before(registry.address) as storage,
        FaultyRegistry.before(guarded.address) as proxy,
    ):
        # The layer is in the other registry as well.
        elsewhere = f"http://localhost:{storage.address.partition(':')[2]}/v2/layers/blobs"
        credentials = known(tmp_path, proxy.address)
        async with RegistryClient(options=impatient(credentials=credentials)) as client:
            image = await client.image(ImageReference.parse(f"{proxy.address}/x:1"), AMD64)
            layer = image.layers[0]
            effect = redirected(f"{elsewhere}/{layer.digest.oci}?signature=a%2Fb")
            proxy.faults.append(Fault(f"GET .*{layer.digest}", effect))
            content = [piece async for piece in client.blob(image.reference, layer.digest, layer.size)]
    assert b"".join(content) == LAYERS[0]
    assert "Authorization" in proxy.seen(str(layer.digest))[0]
    [headers] = storage.seen(str(layer.digest))
    assert "Authorization" not in headers


async def test_a_secret_that_the_registry_repeats_is_not_shown(guarded: RegistryServer, tmp_path: Path) -> None:
    fault = Fault("GET .*/tags/list", refused(403, text=f"not with {PASSWORD}"))
    async with FaultyRegistry.before(guarded.address, fault) as proxy:
        options = impatient(credentials=known(tmp_path, proxy.address))
        reference = ImageReference.parse(f"{proxy.address}/x:1")
        await _be_refused(options, reference)


async def _be_refused(options: RegistryOptions, reference: ImageReference) -> None:
    async with RegistryClient(options=options) as client:
        await client.manifest(reference)
        with pytest.raises(AccessDeniedError, match=r"not with \*\*\*") as caught:
            await client.tags(reference)
    assert PASSWORD not in str(caught.value)
