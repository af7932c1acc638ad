""".env.example is the whole documentation of what can be set."""

import re
from typing import Any

import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import Settings, SettingsError
from services.converter.settings import ConverterSettings
from services.publisher.settings import PublisherSettings
from services.registry.settings import RegistrySettings
from services.repository.native.storage.settings import RepositoryStoreSettings
from services.setup.settings import SetupSettings
from tests.compose.conftest import VARIANTS, Read
from tests.support.compose import CHECKOUT
from tests.support.documentation import environment_examples

_EXAMPLE = (CHECKOUT / ".env.example").read_text()
_NAMES = re.findall(r"^#?([A-Z0-9_]+)=", _EXAMPLE, re.MULTILINE)


def _fixed(service: dict[str, Any]) -> set[str]:
    """Return the variables that the compose files decide, for secrets those that hold them."""
    return {fixed for name in service["environment"] for fixed in (name, name.removesuffix("_FILE"))}


def test_every_variable_of_the_compose_files_is_documented_with_its_default() -> None:
    texts = [(CHECKOUT / "docker-compose.yml").read_text()]
    texts += [(CHECKOUT / f"docker-compose.{variant}.yml").read_text() for variant in VARIANTS]
    used = dict(re.findall(r"\$\{([A-Z0-9_]+)(?::-([^}]*))?", "\n".join(texts)))
    assert used
    assert [name for name in used if name not in _NAMES] == []
    other = [
        name for name, default in used.items() if default and f"#{name}={default}\n" not in _EXAMPLE.replace("# ", "")
    ]
    assert other == []


def test_every_setting_of_a_service_is_documented_or_decided(read: Read) -> None:
    services = read()["services"]
    several = read("ha")["services"]
    examples = {
        **{
            name: text
            for name, text in environment_examples(RepositoryStoreSettings).items()
            if name not in _fixed(several["publisher"])
        },
        **{
            name: text
            for settings in (PublisherSettings, ArchiveLimits)
            for name, text in environment_examples(settings).items()
            if name not in _fixed(services["publisher"])
        },
        **{
            name: text
            for settings in (ConverterSettings, RegistrySettings)
            for name, text in environment_examples(settings).items()
            if name not in _fixed(services["converter"])
        },
        **{
            name: text
            for settings in (ObjectStoreSettings, SetupSettings)
            for name, text in environment_examples(settings).items()
            if name not in _fixed(services["setup"]) or name.removeprefix("SETUP_") in {"PATIENCE", "LOG_LEVEL"}
        },
    }
    assert [f"add: {text}" for text in examples.values() if text not in _EXAMPLE] == []


def test_nothing_is_documented_twice_or_without_effect(read: Read) -> None:
    assert sorted(_NAMES) == sorted(set(_NAMES))
    texts = "".join((CHECKOUT / name).read_text() for name in ("docker-compose.yml", "docker/make-secrets"))
    texts += "".join((CHECKOUT / f"docker-compose.{variant}.yml").read_text() for variant in VARIANTS)
    services = read()["services"]
    known = {
        name
        for settings in (PublisherSettings, ObjectStoreSettings, ArchiveLimits)
        for name in environment_examples(settings)
    } - _fixed(services["publisher"])
    known |= {
        name for settings in (ConverterSettings, RegistrySettings) for name in environment_examples(settings)
    } - _fixed(services["converter"])
    known |= environment_examples(RepositoryStoreSettings).keys() - _fixed(read("ha")["services"]["publisher"])
    assert [name for name in _NAMES if name not in known and name not in texts and name != "COMPOSE_FILE"] == []


def test_services_understand_whatever_may_be_in_the_file_of_settings(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, several = read()["services"], read("ha")["services"]
    for name, service, groups in (
        ("publisher", services["publisher"], _PUBLISHER),
        ("converter", services["converter"], (ConverterSettings, RegistrySettings)),
        *((name, several[name], (*_PUBLISHER, RepositoryStoreSettings)) for name in ("publisher", "publisher-2")),
    ):
        with monkeypatch.context() as patch:
            # What is given in .env first, as engines do, and then what the compose files decide.
            for variable, value in {**_GIVEN, **service["environment"]}.items():
                patch.setenv(variable, value)
            unknown = [_unknown(settings) for settings in groups]
        assert unknown == [[]] * len(groups), name


_PUBLISHER = (PublisherSettings, ObjectStoreSettings, ArchiveLimits, RegistrySettings)
_GIVEN = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", _EXAMPLE, re.MULTILINE))


def _unknown(settings: type[Settings]) -> list[str]:
    """Say which variables the environment has that are no settings of a group."""
    try:
        settings.load()
    except SettingsError as error:
        return [problem for problem in str(error).split("; ") if "is not a setting" in problem]
    return []


@pytest.mark.parametrize(
    ("service", "variants"),
    [
        *((service, ()) for service in ("publisher", "converter", "setup", "docker2cvmfs")),
        *((service, ("ha",)) for service in ("publisher", "publisher-2", "database", "repository-create")),
    ],
)
def test_no_secret_is_in_an_environment(read: Read, service: str, variants: tuple[str, ...]) -> None:
    environment = read(*variants)["services"][service]["environment"]
    secrets = {name: value for name, value in environment.items() if re.search(r"(KEY|TOKEN|PASSWORD)(_FILE)?$", name)}
    assert secrets
    assert [name for name, value in secrets.items() if not value.startswith("/run/secrets/")] == []
