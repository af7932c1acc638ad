"""What docs/kubernetes.md says of the stratum-0 side: secrets, images and places are those of the manifests."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from services.repository.native.commands.__main__ import cli
from tests.deploy.test_stratum0 import OVERLAYS
from tests.support.kubernetes import STRATUM0, Rendered, render

_ROOT = Path(__file__).parents[2]
_DOCUMENT = _ROOT / "docs" / "kubernetes.md"
_CHAPTER = _DOCUMENT.read_text().partition("\n## The stratum-0 side\n")[2]
_COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```sh\n(.*?)```", _CHAPTER, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.fixture(scope="module")
def variants() -> Mapping[str, Rendered]:
    return {name: render(STRATUM0 / "overlays" / name) for name in OVERLAYS}


def test_every_variant_is_named(variants: Mapping[str, Rendered]) -> None:
    assert {path.name for path in (STRATUM0 / "overlays").iterdir()} == set(variants)
    assert set(re.findall(r"^\| `([\w-]+)` \|", _CHAPTER, re.MULTILINE)) == set(variants)


def test_images_that_are_built_are_those_that_pods_have(variants: Mapping[str, Rendered]) -> None:
    built = {command[command.index("--tag") + 1] for command in _COMMANDS if command[:2] == ["docker", "build"]}
    pushed = {command[2] for command in _COMMANDS if command[:2] == ["docker", "push"]}
    images = {
        container["image"]
        for rendered in variants.values()
        for workload in rendered.workloads()
        for container in workload["spec"]["template"]["spec"]["containers"]
    }
    assert built == pushed == images


def test_secrets_are_those_that_pods_read(variants: Mapping[str, Rendered]) -> None:
    """Each is made, in the namespace of the pods, with the files that are read."""
    made: dict[str, set[str]] = {}
    for command in _COMMANDS:
        if "secret" in command:
            assert command[2] == variants["single"].get("Namespace", "cvmfs-thin-stratum0")["metadata"]["name"]
            sources = [text.partition("=")[2] for text in command if text.startswith("--from-file=")]
            made[command[command.index("generic") + 1]] = {source.partition("=")[0] for source in sources}
    read: dict[str, set[str]] = {}
    for rendered in variants.values():
        for workload in rendered.workloads():
            name = workload["metadata"]["name"]
            mounts = {mount["name"]: mount["mountPath"] for mount in rendered.container(name)["volumeMounts"]}
            for volume in rendered.pod(name)["volumes"]:
                if "secret" in volume:
                    path = re.compile(rf"{mounts[volume['name']]}/([\w.-]+)")
                    files = {found for value in rendered.environment(name).values() for found in path.findall(value)}
                    read.setdefault(volume["secret"]["secretName"], set()).update(files)
    assert made.keys() == read.keys()
    # All files of a directory: keys, and what docs and command before it put into `store/`.
    for name, directory in (("repository-keys", "keys"), ("repository-store", "store")):
        assert made.pop(name) == {directory}
    read["repository-keys"].clear()
    (create,) = (command for command in _COMMANDS if "--state" in command)
    stored = {Path(text).name for text in create if text.startswith("REPOSITORY_STORE_") and "_FILE=" in text}
    assert read.pop("repository-store") == stored
    del read["repository-keys"]
    assert made == read


def test_keys_are_made_as_it_is_said() -> None:
    creates = [command[command.index("thin-repository") + 2 :] for command in _COMMANDS if "thin-repository" in command]
    assert len(creates) == 2  # in a bucket, and in a directory
    for arguments in creates:
        parsed = cli.commands["create"].make_context("create", arguments).params
        assert parsed["name"] == "images.example.org"
        assert str(parsed["keys"]) == "/keys"


def test_what_is_applied_and_asked_is_there(variants: Mapping[str, Rendered]) -> None:
    applied = [command[-1] for command in _COMMANDS if command[:2] == ["kubectl", "apply"]]
    assert applied
    assert [path for path in applied if not (_ROOT / path).exists()] == []
    for name in re.findall(r"deployment/(\w+)", _CHAPTER):
        variants["single"].get("Deployment", name)
    jobs = set(re.findall(r"job/([\w-]+)", _CHAPTER))
    assert jobs == {one["metadata"]["name"] for one in variants["ha"].objects if one["kind"] == "Job"}
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", _CHAPTER)
    assert [link for link in links if not (_DOCUMENT.parent / link).exists()] == []
