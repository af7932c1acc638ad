"""The commands about images, against a real publisher and a real registry."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from harness.seaweedfs import SeaweedFS
from services.common.image_name import ImageName
from services.common.publisher_api import Collection, Status
from services.thinctl import image_commands, image_tables, tables
from services.thinctl.commands import Access
from services.thinctl.image_cli import images
from tests.support.commands import Ended
from tests.support.image_site import layer_of, push_image, sha256
from tests.support.object_stores import new_bucket
from tests.support.publisher import TOKEN, PublisherProcess
from tests.support.registries import RegistryServer
from tests.thinctl.conftest import thinctl

_BASE, _OLD, _NEW = layer_of("base"), layer_of("old"), layer_of("new")


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A publisher, and a registry."""

    publisher: PublisherProcess
    registry: RegistryServer
    token_file: Path

    def read(self, *arguments: object) -> Ended:
        """Run a command without the token."""
        return thinctl("images", *arguments, env={"THINCTL_PUBLISHER": self.publisher.url})

    def change(self, *arguments: object) -> Ended:
        """Run a command with the token."""
        return self.read(*arguments, "--token-file", self.token_file)

    def push(self, name: str, *layers: bytes) -> ImageName:
        """Push an image."""
        return asyncio.run(push_image(self.registry, name, layers))

    def publish(self, name: ImageName, *options: str) -> Any:  # noqa: ANN401 - a JSON document
        """Have an image published, and wait for it."""
        (image,) = _document(self.change("publish", name, *options, "--wait", "--json"))["images"]
        assert image["state"] == "published"
        return image

    def show(self, name: ImageName) -> Any:  # noqa: ANN401 - a JSON document
        """Return all that is known of an image."""
        return _document(self.read("show", name, "--json"))

    @property
    def unknown(self) -> ImageName:
        """The name of an image that the registry has not."""
        return ImageName(f"{self.registry.address}/nothing:here")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(seaweedfs: SeaweedFS, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[_Site]:
    """A publisher that collects at once what is named by nothing, but only when it is told to."""
    directory = tmp_path_factory.mktemp("images")
    token_file = directory / "token"
    token_file.write_text(f"{TOKEN}\n")
    async with new_bucket(seaweedfs.access) as access, RegistryServer.run(directory / "registry") as registry:
        settings = {
            "PUBLISHER_SWEEP_INTERVAL": "3600",
            "PUBLISHER_COLLECT_AFTER": "0",
            "PUBLISHER_COLLECT_INTERVAL": "0",
            "REGISTRY_PLAIN_HTTP": registry.address,
        }
        publisher = PublisherProcess(directory / "publisher", access, settings)
        async with publisher.running():
            yield _Site(publisher=publisher, registry=registry, token_file=token_file)


def _document(ended: Ended) -> Any:  # noqa: ANN401 - a JSON document
    assert ended.status == 0, ended.errors
    return json.loads(ended.out)


def _has_line(ended: Ended, pattern: str) -> bool:
    """Say whether a command wrote a line like that; tables fill lines with spaces."""
    return any(re.fullmatch(pattern, line.rstrip()) for line in ended.out.decode().splitlines())


def test_an_image_is_published_and_shown(site: _Site) -> None:
    name = site.push("shown:1", _BASE, _OLD)
    ended = site.change("publish", name, "--wait", "--priority", "5")
    assert ended.status == 0, ended.errors
    assert f"{name}: published\n" in ended.errors
    document = site.show(name)
    assert (document["state"], document["priority"], document["platforms"]) == ("published", 5, ["linux/amd64"])
    assert [layer["digest"] for layer in document["layers"]] == [sha256(_BASE), sha256(_OLD)]
    assert [version["digest"] for version in document["versions"]] == [document["published_digest"]]
    shown = site.read("show", name)
    assert _has_line(shown, rf"published digest +{document['published_digest']}")
    assert _has_line(shown, r"took +resolving \d+\.\d\d s, fetching \d+\.\d\d s, publishing \d+\.\d\d s")
    for layer in (_BASE, _OLD):
        assert _has_line(shown, rf"{sha256(layer)} +published +{len(layer) / 1024:.1f} KiB")
    assert _has_line(shown, rf"{document['published_digest']} +\S+ \S+ ago +- +- +-")
    # Published already: nothing is left to wait for.
    assert site.publish(name)["published_at"] == document["published_at"]


def test_exactly_the_digest_that_is_named_is_read_from_elsewhere(site: _Site) -> None:
    name = site.push("exact:1", _BASE, _OLD)
    former = site.publish(name)
    site.push("exact:1", _BASE, _NEW)
    other = ImageName(f"{site.registry.address}/exact-copy:2")
    exact = site.publish(other, "--reference", name, "--digest", former["digest"], "--platform", "linux/amd64")
    assert (exact["published_digest"], exact["reference"]) == (former["published_digest"], name)
    assert _has_line(site.read("show", other), rf"read from +{name}")


def test_a_refused_image_is_listed_with_its_reason_and_tried_again(site: _Site) -> None:
    name = site.push("refused:1", _BASE)
    ended = site.change("publish", name, "--platform", "linux/s390x", "--wait")
    assert (ended.status, ended.out) == (3, b"")
    document = site.show(name)
    assert (document["state"], document["retryable"]) == ("failed", False)
    assert f"image {name} is not published: {document['reason']}: mend it, then `thinctl images" in ended.errors
    prefix = name.removesuffix(":1")
    shown = site.read("list", "--state", "failed", "--prefix", prefix)
    # A long reason goes on in the next line.
    assert _has_line(shown, rf"{name} +refused +.*{re.escape(document['reason'][:40])}.*")
    assert _document(site.read("list", "--state", "published", "--prefix", prefix, "--json"))["images"] == []
    status = thinctl("status", env={"THINCTL_PUBLISHER": site.publisher.url})
    assert _has_line(status, r"images +.*1 failed, 1 of the failed ones refused for good")
    again = site.change("retry", name, "--wait")
    assert (again.status, document["reason"] in again.errors) == (3, True)
    assert _document(site.change("retry", "--failed", "--json")) == {"restarted": 1}
    assert site.publish(name)["reason"] is None
    assert _document(site.change("retry", "--failed", "--json")) == {"restarted": 0}


def test_a_wait_is_bounded_and_tells_of_failures_that_pass(site: _Site) -> None:
    ended = site.change("publish", site.unknown, "--wait", "--timeout", "0.0001")
    assert ended.status == 6
    assert "not everything has been done after 0.0001 s; the publisher goes on" in ended.errors
    # Asked several times, since it may appear yet; then it is refused.
    ended = site.change("publish", site.unknown, "--wait")
    assert ended.status == 3
    assert f"image {site.unknown} is not published: " in ended.errors
    assert _document(site.change("remove", site.unknown, "--wait", "--json"))["images"][0]["state"] == "removed"


def test_images_are_listed_page_by_page(site: _Site, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [site.push(f"listed:{number}", _BASE) for number in range(3)]
    for name in names:
        site.publish(name)
    prefix = names[0].removesuffix(":0")
    few = site.read("list", "--prefix", prefix, "--limit", "2")
    assert "there are more than these 2: --all shows them" in few.errors
    assert [line.split()[:2] for line in few.out.decode().splitlines()[1:]] == [
        [name, "published"] for name in names[:2]
    ]
    monkeypatch.setattr(image_commands, "_PAGE", 2)
    access = Access(url=site.publisher.url, token=None)
    for limit, count, more in ((None, 3, False), (3, 3, False), (2, 2, True), (1, 1, True)):
        found, others = asyncio.run(image_commands.images(access, [("prefix", prefix)], limit=limit))
        assert ([image.name for image in found], others) == (names[:count], more)


def test_an_image_is_replaced_restored_removed_and_its_layers_collected(site: _Site) -> None:
    gone = layer_of("only here")
    name = site.push("turns:1", _BASE, gone)
    first = site.publish(name)
    site.push("turns:1", _BASE)
    second = site.publish(name)
    assert second["published_digest"] != first["published_digest"]
    (restored,) = _document(site.change("restore", name, "--wait", "--json"))["images"]
    assert restored["published_digest"] == first["published_digest"]
    assert site.change("restore", name, "--digest", second["digest"], "--wait").status == 0
    assert site.show(name)["published_digest"] == second["published_digest"]
    # Kept for a week, as the publisher is set to.
    assert _document(site.change("collect", "--json"))["layers"] == []
    assert site.change("restore", name, "--digest", first["digest"], "--wait").status == 0
    removed = site.change("remove", name, "--keep", "0", "--wait")
    assert (removed.status, b" removed " in removed.out) == (0, True), removed.errors
    assert _has_line(site.read("show", name), r"removed +20\S+ \(\S+ \S+ ago\)")


def test_a_layer_that_nothing_names_is_shown_and_then_collected(site: _Site) -> None:
    gone = layer_of("nobody's")
    name = site.push("collected:1", gone)
    site.publish(name)
    assert site.change("remove", name, "--keep", "0", "--wait").status == 0
    wanted = site.change("collect", "--dry-run")
    assert wanted.status == 0, wanted.errors
    assert _has_line(wanted, r"\d+ layers, \d+ B of files, would go")
    assert _has_line(wanted, rf"{sha256(gone)} +8 B +\S+ \S+ ago")
    collected = _document(site.change("collect", "--json"))
    assert collected["dry_run"] is False
    assert sha256(gone) in [layer["digest"] for layer in collected["layers"]]
    assert sha256(gone) not in site.change("collect").out.decode()
    refused = site.change("restore", name)
    assert refused.status == 3
    assert "it has been collected" in refused.errors


def test_an_image_that_is_not_whole_is_found_by_a_check_and_published_again(site: _Site) -> None:
    name = site.push("lost:1", _BASE)
    image = site.publish(name, "--output", "flat:others-read")
    assert image["outputs"] == {"flat": {"others_read": True}}
    assert _has_line(site.read("show", name), r"outputs +flat \(others_read True\)")
    assert _has_line(site.read("show", name), rf"flat at +{name.path}")
    assert _has_line(site.read("list", "--prefix", name), rf"{name} +published .* flat \(others_read True\)")
    assert (site.publisher.root / name.path / "file").read_bytes() == b"base"
    manifest = site.publisher.root / ".metadata" / name.path / "manifest.json"
    manifest.unlink()
    checked = thinctl("check", "--publisher", site.publisher.url, "--token-file", site.token_file)
    assert checked.status == 7
    assert f"    {name}\n" in checked.out.decode()
    assert "thinctl images retry NAME" in checked.out.decode()
    assert site.change("retry", name, "--wait").status == 0
    assert manifest.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("show", "{unknown}-other"), 5, "no image {unknown}-other has been asked for: `thinctl images publish"),
        (("show", "tool:v1"), 2, "not the name of an image"),
        (("publish", "tool:v1"), 2, "not the name of an image"),
        (("publish", "{unknown}", "--digest", "md5:0"), 2, "md5:0"),
        (("publish", "{unknown}", "--platform", "LINUX"), 2, "platforms: "),
        (("publish", "{unknown}", "--output", "squash"), 2, "not an output"),
        (("publish", "{unknown}", "--priority", "1001"), 2, "1001 is not in the range"),
        (("publish", "{unknown}", "--reference", "a b"), 3, "a b"),
        (("retry",), 2, "name images, or give --failed"),
        (("retry", "--failed", "--wait"), 2, "--wait is for images that are named"),
        (("retry", "{unknown}-other"), 5, "no image of this name"),
        (("remove", "{unknown}-other"), 5, "no image of this name"),
        (("remove", "{unknown}", "--keep", "-1"), 2, "-1"),
        (("restore", "{unknown}-other"), 5, "no image of this name"),
        (("list", "--state", "lost"), 2, "'lost' is not one of"),
    ],
)
def test_errors_have_their_exit_status_and_say_what_to_do(
    site: _Site, arguments: tuple[str, ...], status: int, text: str
) -> None:
    written = [argument.format(unknown=site.unknown) for argument in arguments]
    ended = (site.read if arguments[0] in ("show", "list") else site.change)(*written)
    assert (ended.status, ended.out) == (status, b""), ended.errors
    assert text.format(unknown=site.unknown) in ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("command", ["publish", "retry", "remove", "restore"])
def test_changes_need_the_token(site: _Site, command: str) -> None:
    ended = site.read(command, site.unknown)
    assert (ended.status, "the token is missing or wrong" in ended.errors) == (4, True)
    assert site.read("collect").status == 4


def test_every_command_has_help_with_an_example() -> None:
    for command in images.commands:
        shown = thinctl("images", command, "--help").out.decode()
        assert f"thinctl images {command}" in shown
        assert "Example" in shown
        assert "--json" in shown
        assert "--token " not in shown


def test_what_a_collection_leaves_and_a_size_that_nobody_knows_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    time = "2026-01-02T03:04:05.678+00:00"
    layers = [{"digest": "a" * 64, "size": None, "named_last": time}]
    kept = [{"digest": "b" * 64, "reason": "it is busy"}]
    document = {"dry_run": False, "at": time, "revision": None, "layers": layers, "kept": kept}
    image_tables.show_collection(Collection.model_validate_json(json.dumps(document)))
    shown = capsys.readouterr()
    assert "1 layers, 0 B of files, are gone" in shown.out
    assert re.search(rf"^{'a' * 64} +- ", shown.out, re.MULTILINE)
    assert shown.err == f"{'b' * 64} stays: it is busy\n"


def test_the_status_of_a_publisher_of_layers_only_tells_of_no_images(capsys: pytest.CaptureFixture[str]) -> None:
    status = Status.model_validate(
        {
            "repository": "unit.cern.ch",
            "paused": None,
            "waiting_for": None,
            "layers": {"published": 1},
            "refused": 0,
            "oldest_unpublished_seconds": 0,
            "transaction": None,
            "sweep": {"begun": 0, "ended": 0, "ended_at": None, "found": 0, "error": None},
            "spool": {"used": 0, "limit": 1},
            "disks": {},
        }
    )
    tables.show_status(status)
    assert "image" not in capsys.readouterr().out
