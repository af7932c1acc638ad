"""deploy/kubernetes is what API servers of all versions take, and what the snapshotter and containerd go by."""

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.node.configuration import Configuration
from services.snapshotter.kubernetes import RUNTIME, kubernetes_snippet, kubernetes_snippet_with_commits
from services.snapshotter.settings import SnapshotterSettings
from services.snapshotter.snippets import CONTAINERD_VERSIONS, NAME
from tests.support.kubernetes import EXAMPLES, Rendered, overlay, render

_ROOT = Path(__file__).parents[2]
OLDEST = (1, 30)
"""The first version that knows profiles of AppArmor as fields."""
VERSIONS = sorted(
    {tuple(map(int, version.split(".")[:2])) for version in map(str, all_versions()) if version[0].isdigit()}
)
VARIANTS = [(name, commits) for name in ("client-in-pods", "client-of-the-machine") for commits in (False, True)]


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda variant: f"{variant[0]}{'-commits' * variant[1]}")
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Rendered, bool]:
    """What an overlay comes to, and whether with commits."""
    name, commits = request.param
    return render(overlay(tmp_path_factory.mktemp("site") / "node", name, commits=commits)), commits


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Everything at once."""
    return render(overlay(tmp_path_factory.mktemp("whole") / "node", "client-in-pods", commits=True))


def _validate(document: dict[str, Any], version: tuple[int, ...]) -> None:
    kubernetes_validate.validate(document, ".".join(map(str, version)), strict=True)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= OLDEST], ids=str)
def test_every_version_of_kubernetes_takes_it(whole: Rendered, version: tuple[int, ...]) -> None:
    for document in (*whole.objects, *(yaml.safe_load(example.read_text()) for example in EXAMPLES)):
        _validate(document, version)


def test_the_newest_version_takes_every_variant(variant: tuple[Rendered, bool]) -> None:
    for document in variant[0].objects:
        _validate(document, VERSIONS[-1])


def test_what_is_wrong_would_be_found(whole: Rendered) -> None:
    wrong = yaml.safe_load(yaml.safe_dump(whole.get("DaemonSet", "snapshotter")))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(wrong, VERSIONS[-1])
    # And the oldest version is the oldest.
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(whole.get("DaemonSet", "snapshotter"), (OLDEST[0], OLDEST[1] - 1))


def test_images_are_targets_of_the_dockerfile(whole: Rendered) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (_ROOT / "Dockerfile").read_text(), re.MULTILINE))
    for name in ("snapshotter", "cvmfs-client"):
        registry, _, image = whole.container(name)["image"].partition("/cvmfs-thin/")
        assert registry == "registry.example.org"
        assert image.partition(":")[0] in targets


def test_the_snapshotter_takes_its_settings(
    variant: tuple[Rendered, bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rendered, commits = variant
    environment = rendered.environment("snapshotter")
    mounts = {mount["mountPath"] for mount in rendered.container("snapshotter")["volumeMounts"]}
    for name, value in environment.items():
        if name.endswith("_FILE"):
            # A file in what the secret is mounted as; here, one of the test's own.
            assert str(Path(value).parent) in mounts
            secret = tmp_path / Path(value).name
            secret.write_text("secret\n")
            monkeypatch.setenv(name, str(secret))
        else:
            monkeypatch.setenv(name, value)
    configuration = Configuration.load(SnapshotterSettings)
    assert configuration.settings.repositories == ("images.example.org",)
    assert (configuration.store is not None) is commits
    known = {variable.name for group in (SnapshotterSettings, ObjectStoreSettings) for variable in variables(group)}
    assert {name.removesuffix("_FILE") for name in environment} - {"POD_IP"} <= known


def test_probes_ask_where_the_snapshotter_answers(whole: Rendered) -> None:
    container = whole.container("snapshotter")
    (port,) = container["ports"]
    assert whole.environment("snapshotter")["SNAPSHOTTER_METRICS"].rpartition(":")[2] == str(port["containerPort"])
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}


def test_the_client_mounts_what_the_snapshotter_allows(whole: Rendered) -> None:
    allowed = whole.environment("snapshotter")["SNAPSHOTTER_REPOSITORIES"]
    assert whole.environment("cvmfs-client") == {"CVMFS_CLIENT_REPOSITORIES": allowed}


def test_directories_are_the_same_inside_and_outside(variant: tuple[Rendered, bool]) -> None:
    """containerd mounts by the paths that the snapshotter knows; and its configuration names them, too."""
    rendered, commits = variant
    settings = SnapshotterSettings()
    paths = rendered.host_paths("snapshotter")
    assert {inside: outside for inside, outside in paths.items() if inside != outside} == {}
    expected = {settings.state, settings.socket.parent, settings.cvmfs_root, Path("/var/lib/cvmfs")}
    assert set(map(Path, paths)) == expected | ({settings.containerd.parent} if commits else set())
    for version in CONTAINERD_VERSIONS:
        write = kubernetes_snippet_with_commits if commits else kubernetes_snippet
        proxies = tomllib.loads(write(settings, version))["proxy_plugins"]
        assert {str(Path(proxy["address"]).parent) for proxy in proxies.values()} <= paths.keys()
        assert proxies[NAME]["exports"]["root"] in paths


def test_mounts_go_from_the_client_to_the_snapshotter(whole: Rendered) -> None:
    propagation = {
        name: {
            mount["mountPath"]: mount["mountPropagation"]
            for mount in whole.container(name)["volumeMounts"]
            if "mountPropagation" in mount
        }
        for name in ("snapshotter", "cvmfs-client")
    }
    assert propagation == {
        "snapshotter": {"/cvmfs": "HostToContainer", "/run/containerd": "HostToContainer"},
        "cvmfs-client": {"/cvmfs": "Bidirectional"},
    }


def test_pods_ask_by_the_runtime_that_containerd_has(whole: Rendered) -> None:
    runtime_class = whole.get("RuntimeClass", "cvmfs")
    assert runtime_class["handler"] == RUNTIME
    for example in EXAMPLES:
        pod = yaml.safe_load(example.read_text())
        assert pod["spec"]["runtimeClassName"] == runtime_class["metadata"]["name"]
        annotations = pod["metadata"].get("annotations", {})
        assert set(annotations.items()) <= {("io.containerd.cri.runtime-handler", RUNTIME)}
    # And they get to nodes on which the snapshotter runs.
    (selector,) = runtime_class["scheduling"]["nodeSelector"].items()
    for name in ("snapshotter", "cvmfs-client"):
        assert selector in whole.pod(name)["nodeSelector"].items()


def test_the_snapshotter_does_not_need_itself(whole: Rendered) -> None:
    for name in ("snapshotter", "cvmfs-client"):
        assert "runtimeClassName" not in whole.pod(name)


def test_only_commits_need_containerd_secrets_and_a_network(variant: tuple[Rendered, bool]) -> None:
    rendered, commits = variant
    volumes = rendered.pod("snapshotter")["volumes"]
    assert any("secret" in volume for volume in volumes) is commits
    policy = rendered.get("NetworkPolicy", "snapshotter")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy.get("egress") == ([{}] if commits else None)
    assert policy["ingress"] == [{"from": [{"namespaceSelector": {}}], "ports": [{"port": "metrics"}]}]
    # With containerd asking the differ, no image is unpacked while the snapshotter is down, its own included.
    strategy = rendered.get("DaemonSet", "snapshotter")["spec"]["updateStrategy"]["type"]
    assert strategy == ("OnDelete" if commits else "RollingUpdate")


def test_privileges_are_few(variant: tuple[Rendered, bool]) -> None:
    rendered, _ = variant
    for document in rendered.objects:
        if document["kind"] != "DaemonSet":
            continue
        pod = document["spec"]["template"]["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "privileged" not in container["securityContext"] or container["name"] == "client"
    security = rendered.container("snapshotter")["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_a_client_is_never_restarted_by_itself(whole: Rendered) -> None:
    """Its end takes the files from containers."""
    assert whole.get("DaemonSet", "cvmfs-client")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    container = whole.container("cvmfs-client")
    assert not {"livenessProbe", "startupProbe"} & container.keys()
    assert "limits" not in container["resources"]
