"""Proxies that the environment names."""

from pathlib import Path

import pytest

from services.registry.client import RegistryClient
from services.registry.errors import RegistryUnavailableError
from services.registry.reference import ImageReference
from tests.support.registries import RegistryServer, impatient
from tests.support.registry_faults import FaultyRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_requests_go_through_the_proxy_unless_the_host_is_exempt(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = ImageReference.parse(f"{registry.address}/layers:1")
    async with FaultyRegistry.before(registry.address) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        async with RegistryClient(options=impatient()) as client:
            await client.head(reference)
            await client.head(reference)
        assert len(proxy.requests) == 2
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        async with RegistryClient(options=impatient()) as client:
            await client.head(reference)
            await client.head(reference)
        assert len(proxy.requests) == 2


async def test_a_proxy_that_is_not_there_is_named(client: RegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://somebody:sesame@127.0.0.1:1")
    with pytest.raises(
        RegistryUnavailableError, match=r"the proxy for http://a.example:5000 failed.*check https_proxy"
    ) as caught:
        await client.manifest(ImageReference.parse("a.example:5000/x"))
    assert "sesame" not in str(caught.value)


async def test_passwords_of_other_programs_are_not_sent(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password sesame\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with (
        FaultyRegistry.before(registry.address) as proxy,
        RegistryClient(options=impatient()) as client,
    ):
        await client.manifest(ImageReference.parse(f"{proxy.address}/layers:1"))
    assert "Authorization" not in proxy.requests[0][1]
