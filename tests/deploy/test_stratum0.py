"""deploy/kubernetes/stratum0 is what API servers of all versions take, and what publisher and converter go by."""

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import Settings, variables
from services.converter.settings import ConverterSettings
from services.publisher.projects import Projects
from services.publisher.settings import PublisherSettings, RepositoryKind
from services.registry.settings import RegistrySettings
from services.repository.native.storage.settings import RepositoryStoreSettings
from tests.deploy.test_kubernetes import OLDEST, VERSIONS
from tests.support.kubernetes import STRATUM0, Rendered, render

_ROOT = Path(__file__).parents[2]
OVERLAYS = ("single", "single-in-directory", "ha")
_SHOWN = "a token of a test"


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """What an overlay comes to."""
    return render(STRATUM0 / "overlays" / request.param)


@pytest.fixture(scope="module")
def whole() -> Rendered:
    """The variant that has a web server."""
    return render(STRATUM0 / "overlays" / "single-in-directory")


@pytest.fixture(scope="module")
def several() -> Rendered:
    """The variant that has several publishers."""
    return render(STRATUM0 / "overlays" / "ha")


def _is_in_bucket(rendered: Rendered) -> bool:
    return not any(one["metadata"]["name"] == "repository" for one in rendered.objects)


def _validate(rendered: Rendered, version: tuple[int, ...]) -> None:
    for document in rendered.objects:
        kubernetes_validate.validate(document, ".".join(map(str, version)), strict=True)


def test_the_newest_version_takes_every_variant(rendered: Rendered) -> None:
    _validate(rendered, VERSIONS[-1])


def test_the_oldest_version_takes_it(whole: Rendered, several: Rendered) -> None:
    for rendered in (whole, several):
        _validate(rendered, OLDEST)


def test_images_are_targets_of_the_dockerfile(rendered: Rendered) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (_ROOT / "Dockerfile").read_text(), re.MULTILINE))
    images = {container["image"] for workload in rendered.workloads() for container in _containers(workload)}
    for image in images:
        registry, _, name = image.partition("/cvmfs-thin/")
        assert registry == "registry.example.org"
        assert name.partition(":")[0] in targets


def _containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    pod = workload["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _set(monkeypatch: pytest.MonkeyPatch, rendered: Rendered, name: str, directory: Path) -> set[str]:
    """Set the variables of a container, and return their names; each file is there, and has a token."""
    environment = rendered.environment(name)
    mounts = {mount["mountPath"] for mount in rendered.container(name)["volumeMounts"]}
    for variable, value in environment.items():
        if variable.endswith("_FILE"):
            assert str(Path(value).parent) in mounts
            secret = directory / f"{variable}.secret"
            secret.write_text(f"{_SHOWN}\n")
            monkeypatch.setenv(variable, str(secret))
        else:
            monkeypatch.setenv(variable, value)
    return {variable.removesuffix("_FILE") for variable in environment}


def _known(*groups: type[Settings]) -> set[str]:
    return {variable.name for group in groups for variable in variables(group)}


def test_the_publisher_takes_its_settings(rendered: Rendered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = _set(monkeypatch, rendered, "publisher", tmp_path)
    settings = PublisherSettings.load()
    assert settings.repository_kind is RepositoryKind.NATIVE
    ObjectStoreSettings.load()
    if _is_in_bucket(rendered):
        assert settings.directory is None
        RepositoryStoreSettings.load()
    else:
        assert settings.directory == Path("/srv/cvmfs/images.example.org")
    known = _known(PublisherSettings, ObjectStoreSettings, RepositoryStoreSettings, RegistrySettings)
    assert names - {"THIN_REPOSITORY_DIRECTORY"} <= known
    # All that is written is on volumes, and keys are where they are looked for.
    mounts = {mount["mountPath"] for mount in rendered.container("publisher")["volumeMounts"]}
    assert {str(path) for path in (settings.state, settings.spool, settings.keys, Path("/tmp"))} <= mounts  # noqa: S108
    assert str(settings.projects).rpartition("/")[0] in mounts


async def test_the_converter_is_a_project_of_the_publisher(
    rendered: Rendered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = _set(monkeypatch, rendered, "converter", tmp_path)
    settings = ConverterSettings.load()
    ((repository, (url, shown)),) = settings.publisher_places().items()
    assert shown is not None
    assert names - {"PUBLISHER_REPOSITORY"} <= _known(ConverterSettings, RegistrySettings)
    publisher = rendered.environment("publisher")
    assert repository == publisher["PUBLISHER_REPOSITORY"]
    service = rendered.get("Service", "publisher")
    assert url == f"http://publisher:{service['spec']['ports'][0]['port']}"
    # The token that it shows is one that the publisher reads from the same secret.
    projects = tmp_path / "projects.yaml"
    text = rendered.get("ConfigMap", "publisher-projects")["data"]["projects.yaml"]
    token = rendered.environment("converter")["CONVERTER_PUBLISHER_TOKEN_FILE"]
    assert f"token_file: {token}," in text
    assert _secret_at(rendered, "publisher", token) == _secret_at(rendered, "converter", token)
    file = tmp_path / "token"
    file.write_text(f"{_SHOWN}\n")
    await asyncio.to_thread(projects.write_text, text.replace(token, str(file)))
    known = Projects(projects)
    await known.load()
    project = await known.of_token([shown.get_secret_value()])
    assert project is not None
    assert project.name == "converter"


def _secret_at(rendered: Rendered, name: str, path: str) -> str:
    mounts = {mount["mountPath"]: mount["name"] for mount in rendered.container(name)["volumeMounts"]}
    volume = mounts[path.rpartition("/")[0]]
    (secret,) = (one["secret"]["secretName"] for one in rendered.pod(name)["volumes"] if one["name"] == volume)
    return str(secret)


def test_wish_lists_name_the_repository(rendered: Rendered) -> None:
    (text,) = rendered.get("ConfigMap", "wish-lists")["data"].values()
    assert yaml.safe_load(text)["defaults"]["repositories"] == rendered.environment("publisher")["PUBLISHER_REPOSITORY"]


def test_probes_and_services_have_the_port_that_is_listened_at(rendered: Rendered) -> None:
    for name, variable in (("publisher", "PUBLISHER_PORT"), ("converter", "CONVERTER_PORT")):
        container = rendered.container(name)
        (port,) = container["ports"]
        assert rendered.environment(name)[variable] == str(port["containerPort"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/healthz", "port": port["name"]}
        service = rendered.get("Service", name)["spec"]
        assert service["ports"][0]["targetPort"] == port["name"]


def test_what_selects_pods_selects_some(rendered: Rendered) -> None:
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in rendered.workloads()]
    selectors = [
        selector
        for one in rendered.objects
        if one["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget")
        for selector in (one["spec"].get("podSelector") or one["spec"].get("selector") or {},)
    ]
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert any(wanted.items() <= pod.items() for pod in labels)


def test_nothing_is_allowed_that_is_not_needed(rendered: Rendered) -> None:
    assert rendered.get("Namespace", "cvmfs-thin-stratum0")["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"
    ] == ("restricted")
    everything = rendered.get("NetworkPolicy", "nothing")["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for workload in rendered.workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in _containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()


def test_secrets_are_named_and_never_there(rendered: Rendered) -> None:
    assert not any(one["kind"] == "Secret" for one in rendered.objects)
    for workload in rendered.workloads():
        for volume in workload["spec"]["template"]["spec"]["volumes"]:
            # A key that others may read is refused.
            assert volume.get("secret", {"defaultMode": 0o440})["defaultMode"] == 0o440


def test_one_pod_has_a_state_that_lasts(rendered: Rendered) -> None:
    for name in ("publisher", "converter"):
        deployment = rendered.get("Deployment", name)["spec"]
        alone = (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
        (state,) = (volume for volume in deployment["template"]["spec"]["volumes"] if volume["name"] == "state")
        assert ("persistentVolumeClaim" in state) == alone
    claims = {one["metadata"]["name"] for one in rendered.objects if one["kind"] == "PersistentVolumeClaim"}
    volumes = [
        volume for workload in rendered.workloads() for volume in workload["spec"]["template"]["spec"]["volumes"]
    ]
    claimed = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    assert claims == claimed


def test_one_of_several_publishers_is_there_at_any_time(several: Rendered) -> None:
    deployment = several.get("Deployment", "publisher")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    labels = deployment["template"]["metadata"]["labels"]
    budget = several.get("PodDisruptionBudget", "publisher")["spec"]
    assert budget["maxUnavailable"] < deployment["replicas"]
    apart = {one["topologyKey"]: one for one in several.pod("publisher")["topologySpreadConstraints"]}
    assert apart["kubernetes.io/hostname"]["whenUnsatisfiable"] == "DoNotSchedule"
    assert apart["topology.kubernetes.io/zone"]["whenUnsatisfiable"] == "ScheduleAnyway"
    for spread in apart.values():
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    (state,) = (volume for volume in several.pod("publisher")["volumes"] if volume["name"] == "state")
    assert state.keys() == {"name", "ephemeral"}


def test_the_migration_works_on_the_journal_of_the_publishers(
    several: Rendered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = _set(monkeypatch, several, "publisher-migration", tmp_path)
    ours, theirs = several.environment("publisher-migration"), several.environment("publisher")
    assert ours.keys() <= theirs.keys()
    assert {name: theirs[name] for name in ours} == ours
    assert {"PUBLISHER_DATABASE", "PUBLISHER_DATABASE_PASSWORD"} <= names
    assert PublisherSettings.load().database == theirs["PUBLISHER_DATABASE"]
    container = several.container("publisher-migration")
    assert container["image"] == several.container("publisher")["image"]
    assert several.pod("publisher-migration")["restartPolicy"] == "OnFailure"


def test_several_publishers_reach_what_they_need_and_nothing_else(several: Rendered) -> None:
    settings = several.environment("publisher")
    database = urlsplit(settings["PUBLISHER_DATABASE"]).port or 5432
    stores = {urlsplit(settings[f"{name}_STORE_ENDPOINT"]).port or 443 for name in ("LAYER", "REPOSITORY")}
    for name, needed in (("publisher", {database, *stores}), ("publisher-migration", {database})):
        rules = several.get("NetworkPolicy", name)["spec"]["egress"]
        ports = {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}
        assert ports == {("UDP", 53), ("TCP", 53), *(("TCP", port) for port in needed)}


def test_servers_see_what_the_publisher_writes(whole: Rendered) -> None:
    server, publisher = whole.pod("repository"), whole.pod("publisher")
    claims = [
        {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
        for pod in (server, publisher)
    ]
    assert claims[0] <= claims[1]
    (mount,) = (one for one in whole.container("repository")["volumeMounts"] if one["name"] == "repository")
    assert mount == {"name": "repository", "mountPath": "/srv/cvmfs", "readOnly": True}
    assert publisher["securityContext"]["fsGroup"] in server["securityContext"]["supplementalGroups"]
    (create,) = publisher["initContainers"]
    assert {one["name"] for one in create["env"]} == {"NAME", "THIN_REPOSITORY_DIRECTORY", "THIN_REPOSITORY_KEYS"}
    budget = whole.get("PodDisruptionBudget", "repository")["spec"]
    assert budget["maxUnavailable"] < whole.get("Deployment", "repository")["spec"]["replicas"]
