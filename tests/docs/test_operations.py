"""The documentation for operators names what there is: commands, metrics, alerts, settings, files, services."""

import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.graphdriver.settings import GraphDriverSettings
from services.publisher.consistency.model import ADVICE
from services.publisher.journal.migrations.former import STEPS
from services.publisher.metrics import Metrics
from services.publisher.settings import PublisherSettings
from services.repository.native.commands.__main__ import cli as native_cli
from services.snapshotter.settings import SnapshotterSettings
from services.thinctl.cli import cli as thinctl_cli
from services.thinctl.image_cli import images
from services.thinctl.settings import ThinctlSettings
from tests.support.documentation import metrics_table

_ROOT = Path(__file__).parents[2]
_OPERATIONS = (_ROOT / "docs" / "operations.md").read_text()
_SECURITY = (_ROOT / "docs" / "security.md").read_text()
_BOTH = _OPERATIONS + _SECURITY
_COMPOSE = (_ROOT / "docker-compose.yml").read_text()

_CODE = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", _BOTH, re.DOTALL)
_LINES = [line for block, inline in _CODE for line in (block or inline).splitlines()]


def _calls(program: str) -> Iterator[list[str]]:
    """Return the arguments of every call of a program."""
    for line in _LINES:
        for arguments in re.findall(rf"(?:^|\s){program} ([^#<>|;&]*)", line):
            yield shlex.split(arguments)


@pytest.mark.parametrize(("program", "cli"), [("thinctl", thinctl_cli), ("thin-repository", native_cli)])
def test_commands_and_their_options_exist(program: str, cli: click.Group) -> None:
    calls = list(_calls(program))
    assert calls
    for name, *arguments in calls:
        if name == "--help":
            continue
        assert name in cli.commands, name
        command = cli.commands[name]
        if isinstance(command, click.Group):
            assert arguments[0] in command.commands, arguments
            command = command.commands[arguments[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options, arguments


def test_every_command_of_thinctl_is_shown() -> None:
    assert {name for name, *_ in _calls("thinctl")} >= set(thinctl_cli.commands)
    assert {arguments[0] for name, *arguments in _calls("thinctl") if name == "images"} == set(images.commands)


def test_the_table_of_disagreements_is_that_of_the_code() -> None:
    rows = [f"| `{kind}` | {advice.meaning} | {advice.remedy} |" for kind, advice in ADVICE.items()]
    assert "\n".join(rows) in _OPERATIONS


def test_every_metric_and_alert_that_is_named_exists() -> None:
    known = set(re.findall(r"^\| `(publisher_\w+)`", "\n".join(metrics_table(Metrics().registry)), re.MULTILINE))
    assert set(re.findall(r"\bpublisher_[a-z_]+\b", _BOTH)) <= known
    alerts = re.findall(r"alert: (\w+)", (_ROOT / "monitoring" / "alerts.yml").read_text())
    assert re.findall(r"^\| `([A-Z]\w+)` \| ", _OPERATIONS, re.MULTILINE) == alerts


_WORDS = (
    r'kind="(\w+)"',
    r'failures\.labels\("(\w+)"\)',
    r'^_(?:FOREIGN|UNDESCRIBED): Final = "(\w+)"',
    r'found\.\w+, "(\w+)"\)',
    r'^    \w+Error: "(\w+)",$',
)
"""How sources name what the metric of failures counts by."""


def test_every_word_for_a_failure_is_explained() -> None:
    rooms = (_ROOT / "services" / "publisher", _ROOT / "services" / "repository")
    sources = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    words = {word for pattern in _WORDS for word in re.findall(pattern, sources, re.MULTILINE)}
    (table,) = re.findall(r"^\| word \|.*\n\|.*\n((?:\|.*\n)+)", _OPERATIONS, re.MULTILINE)
    explained = {word for row in table.splitlines() for word in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert explained == words


def test_every_setting_that_is_named_exists() -> None:
    groups = (
        PublisherSettings,
        ObjectStoreSettings,
        GraphDriverSettings,
        SnapshotterSettings,
        ThinctlSettings,
        ArchiveLimits,
    )
    known = {variable.name for settings in groups for variable in variables(settings)}
    example = set(re.findall(r"^#?([A-Z_]+)=", (_ROOT / ".env.example").read_text(), re.MULTILINE))
    named = set(re.findall(r"\b(?:PUBLISHER|LAYER_STORE|GRAPHDRIVER|SNAPSHOTTER|THINCTL|LISTEN)_[A-Z_]+[A-Z]\b", _BOTH))
    assert named
    assert {name.removesuffix("_FILE") for name in named} <= known | example
    assert "COMPOSE_FILE" in example


def test_services_volumes_secrets_and_files_exist() -> None:
    services = set(re.findall(r"^  ([a-z0-9-]+):$", _COMPOSE.split("\nnetworks:")[0], re.MULTILINE))
    options = r"(?: --entrypoint \w+| --tail \d+| -\S+)*"
    named = re.findall(rf"docker compose (?:exec|run|logs|stop|start|ps){options} ([a-z0-9]+)", _BOTH)
    assert set(named) >= {"publisher", "setup", "minio"}
    assert set(named) <= services
    volumes = _COMPOSE.split("\nvolumes:")[1].split("\nconfigs:")[0]
    for name in re.findall(r"volume `([a-z-]+)`", _BOTH):
        assert f"  {name}:" in volumes
    make = (_ROOT / "docker" / "make-secrets").read_text()
    for name in re.findall(r"secrets/(\w+)", _BOTH):
        user, _, kind = name.partition("_")
        assert name in make or (kind in ("access_key", "secret_key") and f" {user}" in make), name
    for name in re.findall(r"`?((?:docker-compose|monitoring/)[\w./]*\.yml)", _BOTH):
        assert (_ROOT / name).exists(), name


def test_the_journal_is_copied_by_the_command_that_is_named(tmp_path: Path) -> None:
    (script,) = re.findall(r'exec publisher python -c "(.+)"$', _OPERATIONS, re.MULTILINE)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection, connection:
        for step in STEPS:
            connection.executescript(step)
        connection.execute("INSERT INTO pause VALUES (1, 1.0, 'back-up')")
    connection.close()
    subprocess.run([sys.executable, "-c", script.replace("/var/lib/cvmfs-thin-publisher", str(tmp_path))], check=True)
    copy = sqlite3.connect(tmp_path / "journal.copy")
    assert copy.execute("SELECT reason FROM pause").fetchone() == ("back-up",)
    copy.close()
