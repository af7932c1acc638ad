"""docs/kubernetes.md says what is there: its commands run, as far as there is no cluster, and its tables agree.

The chapter on the stratum-0 side has tests of its own.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.snapshotter.__main__ import main
from tests.deploy.test_kubernetes import OLDEST
from tests.support.documentation import commands_below
from tests.support.kubernetes import NODE, Rendered, overlay, render

_ROOT = Path(__file__).parents[2]
_DOCUMENT = _ROOT / "docs" / "kubernetes.md"
_TEXT = _DOCUMENT.read_text().partition("\n## The stratum-0 side\n")[0]
_COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```sh\n(.*?)```", _TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]

_KUBECTL = """#!/bin/sh
set -eu
case "$1 $2" in
"apply --kustomize") kustomize build "$3" >>"$APPLIED" ;;
"apply --filename") cat "$3" >>"$APPLIED" ;;
esac
"""
"""A cluster that takes everything."""


def _calls(program: str, *beginning: str) -> list[Sequence[str]]:
    """Return the arguments of every call of a program that begins so."""
    found = [command[1:] for command in _COMMANDS if command[0] == program]
    return [arguments for arguments in found if tuple(arguments[: len(beginning)]) == beginning]


@pytest.fixture
def whole(tmp_path: Path) -> Rendered:
    return render(overlay(tmp_path / "node", "client-in-pods", commits=True))


def test_what_is_applied_is_there(tmp_path: Path) -> None:
    shutil.copytree(NODE, tmp_path / NODE.relative_to(_ROOT))
    (tmp_path / "images.example.org.pub").write_text("a key\n")
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(_KUBECTL)
    kubectl.chmod(0o755)
    applied = tmp_path / "applied"
    script = commands_below(_DOCUMENT, "**3. A site's settings.**") + commands_below(_DOCUMENT, "**5. A pod**")
    script += commands_below(_DOCUMENT, "## Images that nobody has made thin")
    environment = {"PATH": f"{kubectl.parent}:{os.environ['PATH']}", "APPLIED": str(applied)}
    command = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    kinds = re.findall(r"^kind: (\w+)$", applied.read_text(), re.MULTILINE)
    assert {kind: kinds.count(kind) for kind in ("DaemonSet", "RuntimeClass", "Pod")} == {
        "DaemonSet": 2,
        "RuntimeClass": 1,
        "Pod": 2,
    }


def test_configurations_are_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = [call[call.index("config") :] for call in _calls("docker", "run")]
    assert len(calls) == 2
    for arguments in calls:
        monkeypatch.setattr("sys.argv", ["snapshotter", *arguments])
        assert main() == 0
    assert capsys.readouterr().out.count("version = 3") == len(calls)


def test_images_that_are_built_are_those_that_pods_have(whole: Rendered) -> None:
    built = {call[call.index("--target") + 1]: call[call.index("--tag") + 1] for call in _calls("docker", "build")}
    assert built == {name: whole.container(name)["image"] for name in ("snapshotter", "cvmfs-client")}
    assert {call[1] for call in _calls("docker", "push")} == set(built.values())


def test_selectors_select_something(whole: Rendered) -> None:
    ((key, value),) = whole.get("RuntimeClass", "cvmfs")["scheduling"]["nodeSelector"].items()
    labels = [call[-1] for call in _calls("kubectl", "label", "node")]
    assert labels == [f"{key}={value}", f"{key}-"]
    namespaces = {call[1] for call in _calls("kubectl", "--namespace")}
    assert namespaces == {whole.get("Namespace", "cvmfs-thin")["metadata"]["name"]}
    for name in re.findall(r"daemonset/([\w-]+)", _TEXT):
        whole.get("DaemonSet", name)
    (deletion,) = (call for call in _calls("kubectl", "--namespace") if "delete" in call)
    name = deletion[deletion.index("--selector") + 1].removeprefix("app.kubernetes.io/name=")
    assert whole.get("DaemonSet", name)["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}


def test_the_secret_has_the_files_that_the_pod_reads(whole: Rendered) -> None:
    ((*_, name, first, second),) = (call for call in _calls("kubectl", "--namespace") if "secret" in call)
    (volume,) = (one["secret"] for one in whole.pod("snapshotter")["volumes"] if "secret" in one)
    assert name == volume["secretName"]
    files = {Path(value).name for key, value in whole.environment("snapshotter").items() if key.endswith("_FILE")}
    assert {first.removeprefix("--from-file="), second.removeprefix("--from-file=")} == files


def _row(name: str) -> list[set[str]]:
    """Return what is written as code in each cell of a row of the table of rights."""
    (cells,) = re.findall(rf"^\| {name} \|(.*)\|$", _TEXT, re.MULTILINE)
    return [set(re.findall(r"`([^`]+)`", cell)) for cell in cells.split("|")]


def test_rights_are_those_of_the_manifests(whole: Rendered) -> None:
    snapshotter, client = _row("capabilities")
    assert snapshotter - {"commits"} == set(whole.container("snapshotter")["securityContext"]["capabilities"]["add"])
    assert client == {"Bidirectional"}
    snapshotter, client = _row("directories of the node")
    assert snapshotter - {"commits"} == set(whole.host_paths("snapshotter").values())
    assert client == set(whole.host_paths("cvmfs-client").values())


def test_the_oldest_version_is_the_one_that_is_checked() -> None:
    assert f"- Kubernetes {'.'.join(map(str, OLDEST))} or later" in _TEXT


def test_named_files_and_links_are_there() -> None:
    names = re.findall(r"`(deploy/[\w./-]+|components/[\w./-]+)`", _TEXT)
    assert [name for name in names if not (_ROOT / name).exists()] == []
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", _TEXT)
    assert links
    assert [link for link in links if not (_DOCUMENT.parent / link).exists()] == []
