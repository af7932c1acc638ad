"""The commands, as processes, against a real registry, object store and publisher."""

import asyncio
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from services.common.descriptor import ThinDescriptor
from tests.docker2cvmfs.conftest import LAYERS, Site
from tests.support.commands import docker2cvmfs
from tests.support.oci import write_image
from tests.support.publisher import REPOSITORY
from tests.support.registries import Authority
from tests.support.registry_faults import FaultyRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIGESTS = [hashlib.sha256(layer).hexdigest() for layer in LAYERS]
DISTINCT = list(dict.fromkeys(DIGESTS))
OUT = ("--output", "/nonexistent/image.tar")
PINNED = f"a@sha256:{'a' * 64}"
OTHER = "the publisher publishes into test.cern.ch, not into other.cern.ch"


async def test_thin_prints_the_descriptor(site: Site) -> None:
    ended = await site.run("thin", site.image, REPOSITORY)
    assert ended.status == 0, ended.errors
    descriptor = ThinDescriptor.parse(ended.out, where="the output")
    assert descriptor.encode() == ended.out
    assert [layer.digest for layer in descriptor.layers] == DIGESTS
    assert descriptor.origin == f"converted:1@http://{site.registry.address}/v2"


async def test_manifest_and_config_are_printed_as_the_registry_has_them(site: Site) -> None:
    manifest, document, config = await asyncio.gather(
        site.run("manifest", site.image), site.run("manifest", site.image, "--json"), site.run("config", site.image)
    )
    described = json.loads(document.out)
    assert described["digest"] == f"sha256:{hashlib.sha256(manifest.out).hexdigest()}"
    assert described["manifest"] == json.loads(manifest.out)
    assert described["manifest"]["config"]["digest"] == f"sha256:{hashlib.sha256(config.out).hexdigest()}"


async def test_pull_writes_verified_layers_and_mends_damaged_ones(site: Site, tmp_path: Path) -> None:
    directory = tmp_path / "layers"
    ended = await site.run("pull", site.image, directory, "--json")
    assert ended.status == 0, ended.errors
    paths = [Path(path) for path in json.loads(ended.out)["layers"]]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] == DISTINCT
    assert sorted(directory.iterdir()) == sorted(paths)

    paths[0].write_bytes(b"damaged")
    again = await site.run("pull", site.image, directory)

    assert hashlib.sha256(paths[0].read_bytes()).hexdigest() == DISTINCT[0]
    assert again.errors.count(": downloaded\n") == 1
    assert again.errors.count(": already there\n") == len(DISTINCT) - 1


async def test_layers_go_from_nowhere_to_the_bucket_to_the_repository(site: Site) -> None:
    url = ("--publisher", site.publisher.url)
    nowhere = json.loads((await site.run("status", site.image, REPOSITORY, *url, "--json")).out)
    assert [(layer["digest"], layer["place"]) for layer in nowhere["layers"]] == [
        (digest, "nowhere") for digest in DISTINCT
    ]
    assert nowhere["to_transfer"] == sum(layer["size"] for layer in nowhere["layers"])

    uploaded = await site.run("publish", site.image, REPOSITORY, "--no-wait", "--json")
    assert uploaded.status == 0, uploaded.errors
    assert {layer["outcome"] for layer in json.loads(uploaded.out)["layers"]} == {"uploaded"}
    bucket = json.loads((await site.run("status", site.image, REPOSITORY, *url, "--json")).out)
    assert {layer["place"] for layer in bucket["layers"]} == {"bucket"}

    late = await site.run("publish", site.image, REPOSITORY, *url, "--timeout", "0.5")
    assert late.status == 5
    assert "not published within 0.5 s" in late.errors

    following = asyncio.create_task(site.run("publish", site.image, REPOSITORY, *url, "--json"))
    await site.announce(*DISTINCT)
    followed = await following
    assert followed.status == 0, followed.errors
    assert json.loads(followed.out)["published"] is True
    assert followed.errors.count(": published\n") + followed.errors.count(": already published\n") == len(DISTINCT)
    table = (await site.run("status", site.image, REPOSITORY, *url)).out.decode()
    assert table.count(f"published in {REPOSITORY}") == len(DISTINCT)
    assert "to transfer: 0 of" in table


async def test_a_refused_layer_is_told_at_once(site: Site) -> None:
    url = ("--publisher", site.publisher.url)
    other = f"{site.registry.address}/refused:1"
    directory = site.registry.directory.parent / "refused"
    write_image(directory, [b"no tar " * 1000], tag="1")
    await site.registry.push(f"oci:{directory}:1", "refused:1", "--preserve-digests")
    following = asyncio.create_task(site.run("publish", other, REPOSITORY, *url))
    digest = hashlib.sha256(b"no tar " * 1000).hexdigest()
    assert (await site.run("publish", other, REPOSITORY, "--no-wait")).status == 0
    await site.announce(digest)
    ended = await following
    assert ended.status == 5
    assert f"layer {digest} is not published: the archive is refused" in ended.errors


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("thin", "UPPER", REPOSITORY), 2, "lower case"),
        (("thin", "{registry}/converted:1", "../etc"), 2, "not a repository name"),
        (("thin", "{registry}/missing:1", REPOSITORY), 3, "missing"),
        (("thin", "{registry}/converted:1", REPOSITORY, "--platform", "linux/s390x"), 3, "linux/amd64"),
        (("publish", "{registry}/converted:1", REPOSITORY), 2, "--publisher is missing"),
        (("publish", "{registry}/converted:1", REPOSITORY, "--publisher", "http://127.0.0.1:1"), 5, "is it up"),
        (("make-thin", "{registry}/converted:1", REPOSITORY), 2, "give one of --push, --load and --output"),
        (("make-thin", "{registry}/converted:1", REPOSITORY, "--output", "-", "--json"), 2, "--json and --output -"),
        (("make-thin", "{registry}/converted:1", REPOSITORY, "--push"), 2, "--push needs --tag"),
        (("make-thin", "{registry}/converted:1", REPOSITORY, "--load", "--all-platforms"), 2, "holds an index"),
        (("make-thin", "{registry}/converted:1", REPOSITORY, "--no-wait", *OUT, "--tag", "Up:1"), 2, "in lower case"),
        (("make-thin", "{registry}/converted:1", REPOSITORY, "--no-wait", *OUT, "--tag", PINNED), 2, "no digest"),
        (("publish", "{registry}/converted:1", "other.cern.ch", "--publisher", "{publisher}"), 2, OTHER),
        (("status", "{registry}/converted:1", "other.cern.ch", "--publisher", "{publisher}"), 2, OTHER),
        (("manifest", "{registry}/converted:1", "--ca-file", "/nonexistent"), 2, "does not exist"),
    ],
)
async def test_errors_have_their_exit_status(site: Site, arguments: tuple[str, ...], status: int, text: str) -> None:
    addresses = {"registry": site.registry.address, "publisher": site.publisher.url}
    command, *rest = (argument.format(**addresses) for argument in arguments)
    ended = await site.run(command, *rest)
    assert (ended.status, ended.out) == (status, b"")
    assert text in ended.errors
    assert "Traceback" not in ended.errors


async def test_a_store_that_is_not_set_up_is_named(site: Site) -> None:
    empty = dict.fromkeys(site.access.environment, "")
    ended = await docker2cvmfs("publish", "--insecure", site.image, REPOSITORY, "--no-wait", env=empty)
    assert ended.status == 2
    assert "LAYER_STORE_ENDPOINT is not set" in ended.errors


async def test_the_publisher_is_a_setting(site: Site) -> None:
    for value, status in ((site.publisher.url, 0), ("ftp://stratum0", 2)):
        env = {**site.access.environment, "DOCKER2CVMFS_PUBLISHER": value}
        ended = await docker2cvmfs("status", "--insecure", site.image, REPOSITORY, env=env)
        assert ended.status == status, ended.errors
        assert ("DOCKER2CVMFS_PUBLISHER" in ended.errors) == (status == 2)


async def test_a_bucket_that_is_missing_is_the_stores_error(site: Site) -> None:
    env = {**site.access.environment, "LAYER_STORE_BUCKET": "not-there"}
    ended = await docker2cvmfs("publish", "--insecure", site.image, REPOSITORY, "--no-wait", env=env)
    assert ended.status == 4
    assert "there is no such bucket" in ended.errors


async def test_help_shows_examples_and_exit_statuses() -> None:
    ended = await docker2cvmfs("--help")
    assert ended.status == 0
    assert b"docker2cvmfs thin library/ubuntu:latest test.cern.ch" in ended.out
    assert b"Exit status:" in ended.out


async def test_an_unwritable_output_is_told(site: Site) -> None:
    ended = await site.run(
        *("make-thin", site.image, REPOSITORY, "--no-wait", "--output", "/proc/nothing/image.tar"),
    )
    assert ended.status == 6
    assert "cannot write /proc/nothing/image.tar" in ended.errors


async def test_several_platforms_become_an_index(site: Site, tmp_path: Path) -> None:
    tag = f"{site.registry.address}/thin/all:1"
    pushed = await site.run(
        *("make-thin", site.image, REPOSITORY, "--no-wait", "--all-platforms", "--push", "--tag", tag, "--json"),
    )
    assert pushed.status == 0, pushed.errors
    written = await site.run(
        *("make-thin", site.image, REPOSITORY, "--no-wait", "--all-platforms", "--format", "oci-archive"),
        *("--output", tmp_path / "image.tar", "--json"),
    )
    assert written.status == 0, written.errors
    assert json.loads(written.out)["digest"] == json.loads(pushed.out)["digest"]
    there = await site.run("manifest", tag, "--json")
    assert json.loads(there.out)["digest"] == json.loads(pushed.out)["digest"]


async def test_a_name_without_a_tag_is_the_latest_and_a_dash_is_the_standard_output(site: Site) -> None:
    made = await site.run(
        *("make-thin", site.image, REPOSITORY, "--no-publish", "--tag", "localhost:5000/base", "--output", "-"),
    )
    assert made.status == 0, made.errors
    assert "standard output" in made.errors
    with tarfile.open(fileobj=io.BytesIO(made.out)) as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        (manifest,) = json.loads(file.read())
    assert manifest["RepoTags"] == ["localhost:5000/base:latest"]


async def test_one_registry_of_two_has_no_tls(site: Site, authority: Authority) -> None:
    tag = f"{site.registry.address}/thin/secured:1"
    async with FaultyRegistry.before(site.registry.address, tls=await authority.issue("secured")) as secured:
        made = await docker2cvmfs(
            *("make-thin", f"{secured.address}/converted:1", REPOSITORY, "--ca-file", authority.certificate),
            *("--no-publish", "--insecure-registry", site.registry.address, "--push", "--tag", tag, "--json"),
        )
    assert made.status == 0, made.errors
    there = await site.run("manifest", tag, "--json")
    assert json.loads(there.out)["digest"] == json.loads(made.out)["digest"]
