"""`converter verify` says who signed an image, or why it does not satisfy a policy."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.errors import InvalidValueError, SuiteError
from services.common.image_name import ImageName
from services.converter.commands.options import load
from services.converter.commands.verify import verify_image
from services.converter.provenance.errors import UntrustedSignatureError
from services.registry.errors import ImageMissingError
from tests.support.commands import run_module
from tests.support.cosign import Cosign
from tests.support.oci import write_image
from tests.support.registries import RegistryServer
from tests.support.tars import archive

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[str, Path]]:
    """A registry's address, with `ns/tool:1` signed by `good`, and a directory with a wish list."""
    directory = tmp_path_factory.mktemp("verify")
    cosign = Cosign(directory)
    for name in ("good", "other"):
        await cosign.make_key(name)
    write_image(directory / "image", (archive(),), tag="1")
    async with RegistryServer.run(directory / "registry") as registry:
        await registry.push(f"oci:{directory / 'image'}:1", "ns/tool:1", "--preserve-digests")
        image = f"{registry.address}/ns/tool"
        await cosign.sign(f"{image}:1", "good")
        (directory / "wishes.yaml").write_text(
            json.dumps(
                {
                    "version": 2,
                    "policies": [
                        {"name": "experiment", "images": f"{image}:*", "keys": ["good.pub"]},
                        {"name": "other", "keys": ["other.pub"]},
                    ],
                    "defaults": {"repositories": "unpacked.example.org"},
                    "images": [f"{image}:1"],
                }
            )
        )
        yield registry.address, directory


async def _verify(
    place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, image: str, *policies: str
) -> list[dict[str, Any]]:
    address, directory = place
    monkeypatch.setenv("REGISTRY_PLAIN_HTTP", address)
    loaded = await load([str(directory / "wishes.yaml")], None, None)
    return await verify_image(ImageName(f"{address}/{image}"), loaded, policies)


async def test_what_is_signed_is_told(place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (verified,) = await _verify(place, monkeypatch, "ns/tool:1")
    assert (verified["policy"], verified["identity"]) == ("experiment", f"{place[0]}/ns/tool")
    (again,) = await _verify(place, monkeypatch, f"ns/tool@{verified['digest']}", "experiment")
    assert again["signature"] == verified["signature"]


@pytest.mark.parametrize(
    ("image", "policies", "error", "told"),
    [
        ("ns/tool:2", (), ImageMissingError, "ns/tool:2"),
        ("ns/tool:1", ("none",), InvalidValueError, "the lists have no policy 'none' but experiment, other"),
        ("ns/more:1", (), InvalidValueError, "no policy of the lists applies to"),
        ("ns/tool:1", ("other",), UntrustedSignatureError, "none of the keys of the policy other"),
    ],
)
async def test_what_is_wrong_is_told(
    place: tuple[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    image: str,
    policies: tuple[str, ...],
    error: type[SuiteError],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        await _verify(place, monkeypatch, image, *policies)


@pytest.mark.parametrize(
    ("options", "status", "out", "errors"),
    [
        ((), 0, "policy: experiment\nkey: good.pub\n", ""),
        (("--policy=other",), 7, "", "converter: "),
    ],
)
async def test_the_command_writes_it_and_has_an_exit_status_for_it(
    place: tuple[str, Path], options: tuple[str, ...], status: int, out: str, errors: str
) -> None:
    address, directory = place
    arguments = ("verify", f"{address}/ns/tool:1", directory / "wishes.yaml", *options)
    ended = await run_module("services.converter", *arguments, env={"REGISTRY_PLAIN_HTTP": address})
    assert ended.status == status
    assert ended.out.decode().startswith(out)
    assert ended.errors.startswith(errors)
    assert bool(ended.out) is bool(out)
