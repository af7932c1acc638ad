"""What holds for every service of every variant."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import NEEDED, VARIANTS, Read, handed_out
from tests.support.compose import CHECKOUT

_CONFIGURATION = ("/etc/cvmfs/repositories.d", "/etc/cvmfs/keys")
ONE_SHOT = {"secrets", "minio-volumes", "setup", "repository-create", "docker2cvmfs"}
_IN_BUCKET = ("repository-create", "publisher", "publisher-2")
ROOT = {"secrets": ["CHOWN", "DAC_READ_SEARCH"], "minio-volumes": ["CHOWN"]}
"""They give files and volumes to others. Images, or the files here, name somebody else as the user of the rest."""


@pytest.fixture(params=["", *(variant for variant in VARIANTS if variant != "cvmfs")], ids=lambda name: name or "minio")
def services(request: pytest.FixtureRequest, read: Read) -> dict[str, Any]:
    found: dict[str, Any] = read(*filter(None, [request.param]))["services"]
    return found


def test_the_variants_are_those_that_are_documented() -> None:
    assert VARIANTS == ["cvmfs", "ha", "s3", "seaweedfs"]


def test_every_root_file_system_is_read_only(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if not service.get("read_only")] == []


def test_no_service_has_more_privileges_than_it_needs(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if service.get("cap_drop") != ["ALL"]] == []
    assert [name for name, service in services.items() if "no-new-privileges:true" not in service["security_opt"]] == []
    added = {name: service["cap_add"] for name, service in services.items() if service.get("cap_add")}
    assert added == {name: ROOT[name] for name in ROOT.keys() & services.keys()}
    assert [name for name, service in services.items() if service.get("privileged") or service.get("pid")] == []


def test_only_who_must_be_root_is_root(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if service.get("user") == "0:0"} == ROOT.keys() & services.keys()


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_services_restart_and_say_whether_they_work(services: dict[str, Any]) -> None:
    lasting = {name: service for name, service in services.items() if name not in ONE_SHOT}
    assert {service["restart"] for service in lasting.values()} == {"unless-stopped"}
    assert [name for name, service in lasting.items() if not service.get("healthcheck", {}).get("test")] == []


def test_memory_processes_and_logs_are_bounded(services: dict[str, Any]) -> None:
    lasting = {name: service for name, service in services.items() if name not in {"minio-volumes", "docker2cvmfs"}}
    limits = {
        name: service.get("deploy", {}).get("resources", {}).get("limits", {}) for name, service in lasting.items()
    }
    assert [name for name, limit in limits.items() if not {"memory", "pids"} <= limit.keys()] == []
    rotation = [service["logging"]["options"].keys() for service in services.values()]
    assert [keys for keys in rotation if keys != {"max-size", "max-file"}] == []


def test_data_are_in_named_volumes(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", [])]
    bound = [mount for mount in mounts if mount["type"] != "volume"]
    assert [(mount["source"], mount["target"], mount["read_only"]) for mount in bound] == [
        (str(CHECKOUT / "wish-lists"), "/etc/cvmfs-thin-converter/wish-lists", True),
        (str(CHECKOUT), "/project", True),  # where secrets may be in files
    ]


def test_every_secret_is_handed_out_to_who_reads_it(services: dict[str, Any]) -> None:
    given = {name: set(secrets) for name, (_, *secrets) in handed_out(services).items()}
    assert given
    volumes = {mount["source"]: mount["target"] for mount in services["secrets"]["volumes"]}
    assert {f"secrets-{name}": f"/handed-out/{name}" for name in given}.items() <= volumes.items()
    for name, service in services.items():
        read = {mount["source"]: mount for mount in service.get("volumes", []) if mount["target"] == "/run/secrets"}
        assert read.keys() == ({f"secrets-{name}"} if name in given else set()), name
        assert all(mount["read_only"] for mount in read.values())
        named = {
            value.removeprefix("/run/secrets/")
            for value in service.get("environment", {}).values()
            if str(value).startswith("/run/secrets/")
        }
        assert named <= given.get(name, set()), name


def test_nobody_reads_secrets_before_they_are_handed_out(services: dict[str, Any]) -> None:
    waiting = {name for name, service in services.items() if "secrets" in service.get("depends_on", {})}
    assert handed_out(services).keys() - waiting == {"docker2cvmfs"}  # it is run where the others run


def test_images_of_others_are_pinned(services: dict[str, Any]) -> None:
    made_here = {service["image"] for service in services.values() if "build" in service}
    images = [service["image"] for service in services.values() if service["image"] not in made_here]
    assert images
    assert [image for image in images if ":" not in image.rsplit("/", 1)[1] or image.endswith(":latest")] == []


def test_services_wait_for_what_they_need(read: Read) -> None:
    def waits(service: dict[str, Any]) -> dict[str, str]:
        return {name: dependency["condition"] for name, dependency in service.get("depends_on", {}).items()}

    services = read()["services"]
    secrets = {"secrets": "service_completed_successfully"}
    assert waits(services["minio"]) == {"minio-volumes": "service_completed_successfully", **secrets}
    assert waits(services["setup"]) == {"minio": "service_healthy", **secrets}
    assert waits(services["publisher"]) == {
        **secrets,
        "minio": "service_healthy",
        "setup": "service_completed_successfully",
        "repository-create": "service_completed_successfully",
    }
    assert waits(services["converter"]) == {**secrets, "publisher": "service_healthy"}
    assert waits(services["registry"]) == secrets
    assert waits(services["repository"]) == {"repository-create": "service_completed_successfully"}
    assert waits(services["grafana"]) == {"prometheus": "service_healthy", **secrets}


def test_minio_announces_layers_to_the_publisher_by_the_webhook_that_is_set_up(read: Read) -> None:
    services = read()["services"]
    webhook = services["setup"]["environment"]["SETUP_WEBHOOK"]
    settings = {
        name.removeprefix("MINIO_NOTIFY_WEBHOOK_").removesuffix(f"_{webhook}"): value
        for name, value in services["minio"]["environment"].items()
        if name.startswith("MINIO_NOTIFY_WEBHOOK_")
    }
    # The token is in the file that MinIO reads its other secrets from.
    assert settings == {
        "ENABLE": "on",
        "ENDPOINT": "http://publisher:8480/v1/events",
        "QUEUE_DIR": "/events",
        "QUEUE_LIMIT": "100000",
    }
    assert services["minio"]["environment"]["MINIO_CONFIG_ENV_FILE"] == "/run/secrets/minio_env"
    assert {mount["target"] for mount in services["minio"]["volumes"]} == {"/data", "/events", "/run/secrets"}
    assert services["publisher"]["networks"].keys() & services["minio"]["networks"].keys()


def test_the_converter_reaches_publisher_and_registry_and_no_store(read: Read) -> None:
    services = read(PUBLISHER_REPOSITORY="other.example.org")["services"]
    networks = {name: set(services[name]["networks"]) for name in ("converter", "publisher", "registry", "prometheus")}
    assert networks["converter"] & networks["publisher"] & networks["registry"] == {"registry"}
    assert networks["converter"] & networks["prometheus"] == {"monitoring"}
    assert "store" not in networks["converter"]
    assert services["converter"]["environment"]["CONVERTER_PUBLISHERS"] == "other.example.org=http://publisher:8480"


def test_registries_are_the_same_to_converter_and_publisher(read: Read, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    for given, path in (("", ""), (str(tmp_path / "ca.pem"), "/etc/registry-ca.pem")):
        document = read(REGISTRY_CA_FILE=given, REGISTRY_PLAIN_HTTP="")
        settings = [
            {name: value for name, value in service["environment"].items() if name.startswith("REGISTRY_")}
            for service in (document["services"]["converter"], document["services"]["publisher"])
        ]
        assert settings[0] == settings[1]
        assert (settings[0]["REGISTRY_PLAIN_HTTP"], settings[0]["REGISTRY_CA_FILE"]) == ("registry:5000", path)
        assert document["configs"]["registry_ca"]["file"] == (given or "/dev/null")


def test_seaweedfs_takes_the_place_of_minio(read: Read) -> None:
    document = read("seaweedfs")
    assert [name for name in (*document["services"], *document["volumes"]) if "minio" in name] == []


@pytest.mark.parametrize(("others", "store"), [([], "minio"), (["seaweedfs"], "seaweedfs")])
def test_everybody_finds_the_store_by_one_name(read: Read, others: list[str], store: str) -> None:
    services = read(*others)["services"]
    assert services[store]["networks"]["store"]["aliases"] == ["object-store"]
    assert [port["target"] for port in services[store]["ports"]] == [9000]
    endpoints = {
        name: service["environment"]["LAYER_STORE_ENDPOINT"]
        for name, service in services.items()
        if "LAYER_STORE_ENDPOINT" in service.get("environment", {})
    }
    assert endpoints == dict.fromkeys(("setup", "publisher", "docker2cvmfs"), "http://object-store:9000")


def test_an_external_store_takes_the_place_of_minio(read: Read) -> None:
    document = read("s3")
    assert [name for name in (*document["services"], *document["volumes"]) if "minio" in name or name == "setup"] == []
    assert document["services"]["publisher"]["environment"]["LAYER_STORE_ENDPOINT"] == "https://s3.example.org"
    assert document["services"]["publisher"]["depends_on"].keys() == {"secrets", "repository-create"}


@pytest.mark.parametrize("others", [(), ("seaweedfs",), ("s3",)], ids=lambda names: "".join(names) or "minio")
def test_a_real_cvmfs_server_takes_the_place_of_the_native_repository(read: Read, others: tuple[str, ...]) -> None:
    document = read(*others, "cvmfs")
    services = document["services"]
    assert "repository-create" not in services
    assert [name for name in document["volumes"] if name.startswith("repository")] == []
    waited_for = [name for service in services.values() for name in service.get("depends_on", ())]
    assert "repository-create" not in waited_for
    assert services["publisher"]["environment"]["PUBLISHER_REPOSITORY_KIND"] == "cvmfs_server"
    assert services["publisher"]["build"]["target"] == "suite-cvmfs"
    assert services["publisher"]["stop_grace_period"] == "15m0s"  # in which a publish can end
    assert services["publisher"]["build"]["args"]["CVMFS_SOURCE"] == NEEDED["CVMFS_SOURCE"]
    mounts = {mount["target"]: mount["source"] for mount in services["publisher"]["volumes"] if mount["type"] == "bind"}
    assert mounts == {place: place for place in ("/srv/cvmfs", "/var/spool/cvmfs", *_CONFIGURATION)}


def test_only_the_publisher_of_a_real_cvmfs_server_has_privileges(read: Read) -> None:
    services = read("seaweedfs", "cvmfs")["services"]
    privileged = {name for name, service in services.items() if service.get("cap_add") or service.get("devices")}
    assert privileged == {"publisher", "secrets"}
    publisher = services["publisher"]
    assert (publisher["cap_drop"], publisher["read_only"], publisher.get("privileged")) == (["ALL"], True, None)
    assert [device["source"] for device in publisher["devices"]] == ["/dev/fuse"]


@pytest.mark.parametrize(
    ("variant", "missing"),
    [("s3", "LAYER_STORE_ENDPOINT"), ("cvmfs", "CVMFS_SOURCE")],
)
def test_a_missing_setting_is_named(read: Read, variant: str, missing: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        read(variant, **{missing: ""})
    assert f"required variable {missing} is missing a value" in caught.value.stderr
    assert "set it in .env" in caught.value.stderr


@pytest.mark.parametrize("others", [(), ("seaweedfs",)], ids=lambda names: "".join(names) or "minio")
def test_two_publishers_differ_in_their_names_and_in_what_they_keep(read: Read, others: tuple[str, ...]) -> None:
    services = read(*others, "ha")["services"]
    first, second = services["publisher"], services["publisher-2"]
    different = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    assert different == {"build", "depends_on", "environment", "networks", "ports", "pull_policy", "volumes"}
    names = [service["environment"].pop("PUBLISHER_NAME") for service in (first, second)]
    assert names == ["publisher-1", "publisher-2"]
    assert first["environment"] == second["environment"]
    own = {"/run/secrets", "/var/lib/cvmfs-thin-publisher", "/var/spool/cvmfs-thin-publisher"}
    one, other = ({mount["target"]: mount["source"] for mount in each["volumes"]} for each in (first, second))
    assert {target for target in one.keys() | other.keys() if one.get(target) != other.get(target)} == own
    # Each is what others call `publisher`.
    assert first["networks"].keys() == second["networks"].keys()
    shared = {name for name, network in second["networks"].items() if "publisher" in network.get("aliases", ())}
    assert shared == {"store", "registry"}
    assert handed_out(services)["publisher"] == handed_out(services)["publisher-2"]


@pytest.mark.parametrize("others", [(), ("seaweedfs",)], ids=lambda names: "".join(names) or "minio")
def test_several_publishers_have_a_database_and_a_repository_in_a_bucket(read: Read, others: tuple[str, ...]) -> None:
    document = read(*others, "ha")
    services, network = document["services"], document["networks"]["database"]
    assert network["internal"] is True
    assert {name for name, service in services.items() if "database" in service.get("networks", ())} == {
        *("database", "publisher", "publisher-2")
    }
    buckets = {
        name: (service["environment"]["REPOSITORY_STORE_BUCKET"], service["environment"]["REPOSITORY_STORE_PREFIX"])
        for name, service in services.items()
        if "REPOSITORY_STORE_BUCKET" in service.get("environment", {})
    }
    # Clients and the web server go by this: the bucket is /cvmfs, and in it the repository has its name.
    place = ("cvmfs", "images.example.org/")
    assert buckets == dict.fromkeys(_IN_BUCKET, place)
    assert services["setup"]["environment"]["SETUP_REPOSITORY_BUCKET"] == "cvmfs"
    assert "$store$uri" in (CHECKOUT / "docker" / "nginx-bucket.conf").read_text()
    assert "/etc/nginx/nginx-bucket.conf" in services["repository"]["command"]
    assert "repository" not in document["volumes"]


def test_a_repository_in_a_bucket_has_the_region_of_the_store(read: Read) -> None:
    services = read("ha", LAYER_STORE_REGION="elsewhere")["services"]
    regions = {services[name]["environment"]["REPOSITORY_STORE_REGION"] for name in _IN_BUCKET}
    assert regions == {services["minio"]["environment"]["MINIO_REGION"]} == {"elsewhere"}
