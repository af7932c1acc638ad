"""The plugin as a process: settings, its socket, signals, kills."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.ports import free_ports
from harness.processes import DaemonError
from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.graphdriver.__main__ import main
from services.graphdriver.plugin import server
from services.graphdriver.settings import GraphDriverSettings
from tests.support.engine_client import EngineClient
from tests.support.fuse import served, stop
from tests.support.metrics import ask, counted, shown
from tests.support.mounts import mounts_below
from tests.support.plugin_process import PluginProcess

COMMAND = [sys.executable, "-m", "services.graphdriver"]


async def _never() -> bool:
    return False


@pytest.fixture
async def process(
    tmp_path: Path,
    mounting: None,  # noqa: ARG001 - ends after this
) -> AsyncIterator[PluginProcess]:
    process = PluginProcess(tmp_path)
    yield process
    await process.daemon.kill()


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GRAPHDRIVER_", "LAYER_STORE_"))}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=120, env={**kept, **environment}
    )


# Settings


def test_help_documents_every_setting_and_needs_no_valid_ones() -> None:
    done = _run("--help", GRAPHDRIVER_NONSENSE="1")
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    for settings in (GraphDriverSettings, ObjectStoreSettings, ArchiveLimits):
        for variable in variables(settings):
            assert f" {variable.name} (" in text
            assert variable.description in text


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"GRAPHDRIVER_REPOSITORY": "x"}, "REPOSITORY is not a setting: is GRAPHDRIVER_REPOSITORIES meant?"),
        ({"GRAPHDRIVER_REPOSITORIES": "ok.org,../etc"}, "GRAPHDRIVER_REPOSITORIES[1]: "),
        ({"GRAPHDRIVER_REPOSITORY_MOUNTS": "both"}, "GRAPHDRIVER_REPOSITORY_MOUNTS: "),
        ({"GRAPHDRIVER_PUBLISH_WAIT": "-1"}, "GRAPHDRIVER_PUBLISH_WAIT: "),
        ({"GRAPHDRIVER_LOOKUP_TIMEOUT": "0"}, "GRAPHDRIVER_LOOKUP_TIMEOUT: "),
        ({"GRAPHDRIVER_METRICS": "localhost:9478"}, "GRAPHDRIVER_METRICS: "),
        ({"GRAPHDRIVER_LAYOUT": "deep"}, "GRAPHDRIVER_LAYOUT: "),
        ({"GRAPHDRIVER_UPLOAD_REPOSITORY": "UPPER"}, "GRAPHDRIVER_UPLOAD_REPOSITORY: "),
        ({"GRAPHDRIVER_REPOSITORIES": "a.org,b.org", "GRAPHDRIVER_UPLOAD_REPOSITORY": "c.org"},
         "GRAPHDRIVER_UPLOAD_REPOSITORY: Value error, c.org is not among GRAPHDRIVER_REPOSITORIES (a.org, b.org)"),
        ({"LAYER_STORE_ENDPOINT": "http://s3:9000"}, "SECRET_KEY is not set (nor LAYER_STORE_SECRET_KEY_FILE)"),
        ({"LAYER_STORE_BUCKET": "layers"}, "LAYER_STORE_ENDPOINT is not set"),
        ({"LAYER_STORE_ENDPOINT": "http://u:secret@s3", "LAYER_STORE_ACCESS_KEY": "a", "LAYER_STORE_SECRET_KEY": "b"},
         "LAYER_STORE_ENDPOINT: "),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], complaint: str
) -> None:
    for name in [name for name in os.environ if name.startswith(("GRAPHDRIVER_", "LAYER_STORE_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["graphdriver"])
    assert main() == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert "secret@" not in said


def test_arguments_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["graphdriver", "--debug"])
    assert main() == 2
    assert capsys.readouterr().err == "unknown argument --debug: settings come from the environment, see --help\n"


async def test_a_service_manager_is_told_when_it_serves(tmp_path: Path) -> None:
    process = PluginProcess(tmp_path)
    address = f"@thin-images-{os.getpid()}-{id(process)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(f"\0{address[1:]}")
        process.daemon.env["NOTIFY_SOCKET"] = address
        await process.start()
        message = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(manager, 100), 120)
    assert message == b"READY=1"
    assert await process.daemon.stop() == 0


async def test_secrets_are_in_no_log(tmp_path: Path) -> None:
    process = PluginProcess(
        tmp_path,
        {
            "LAYER_STORE_ENDPOINT": "http://127.0.0.1:9",
            "LAYER_STORE_ACCESS_KEY": "the-access-key",
            "LAYER_STORE_SECRET_KEY": "the-secret-key",
            "GRAPHDRIVER_LOG_LEVEL": "debug",
        },
    )
    await process.start()
    await process.call("Init", Home=str(process.home))
    assert await process.daemon.stop() == 0
    log = process.daemon.log.read_text()
    assert '"serving"' in log
    assert "the-secret-key" not in log
    assert "the-access-key" not in log


async def test_it_is_watched_at_a_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    place = f"127.0.0.1:{port}"
    process = PluginProcess(tmp_path, {"GRAPHDRIVER_METRICS": place})
    await process.start()
    assert await ask(place, "/healthz") == {"status": "alive", "initialised": False}
    async with EngineClient.connected(process.socket) as client:
        assert (await client.call("/GraphDriver.Exists", {"ID": "x"})).status == 503
        await client.call("/GraphDriver.Init", {"Home": str(process.home)})
        assert (await client.call("/GraphDriver.Get", {"ID": "x"})).status == 404
        assert (await client.call("/GraphDriver.Invented", {"ID": "x"})).status == 404
        assert (await client.call("/GraphDriver.Create", {"ID": "base"})).status == 200
        assert (await client.call("/GraphDriver.Exists", {"ID": "base"})).status == 200
        assert (await client.call("/GraphDriver.Create", {"ID": "base"})).status == 500
    values = await shown(place)
    assert counted(values, "thin_node_operations_total") == {
        f'{{method="{method}",outcome="{outcome}"}}': 1
        for method, outcome in (
            ("Activate", "ok"),
            ("Exists", "refused"),
            ("Init", "ok"),
            ("Get", "refused"),
            ("unknown", "refused"),
            ("Create", "ok"),
            ("Exists", "ok"),
            ("Create", "failed"),
        )
    }
    assert values['thin_node_repository_users{repository="test.example.org"}'] == 0
    assert (await ask(place, "/healthz"))["initialised"] is True
    assert await process.daemon.stop() == 0


# The socket


async def test_the_socket_is_roots_only(process: PluginProcess) -> None:
    await process.start()
    status = process.socket.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


async def test_a_second_process_on_the_socket_is_refused_and_the_first_goes_on(
    process: PluginProcess, tmp_path: Path
) -> None:
    await process.start()
    other = PluginProcess(tmp_path, {"GRAPHDRIVER_STATE": str(tmp_path / "other state")})
    with pytest.raises(DaemonError, match=rf"with status 1\n(?s:.*)another process listens on {process.socket}: stop"):
        await other.daemon.start(_never)
    await process.call("Init", Home=str(process.home))


async def test_a_second_process_on_the_state_is_refused(process: PluginProcess, tmp_path: Path) -> None:
    """It would serve the same home as the first, and each would count its own mounts."""
    await process.start()
    other = PluginProcess(tmp_path / "other", {"GRAPHDRIVER_STATE": str(tmp_path / "state")})
    with pytest.raises(DaemonError, match=rf"with status 1\n(?s:.*)another process uses {tmp_path}/state: stop it"):
        await other.start()
    assert not other.socket.exists()
    await process.call("Init", Home=str(process.home))


async def test_the_socket_of_a_killed_process_is_replaced(process: PluginProcess) -> None:
    await process.start()
    await process.daemon.kill()
    assert process.socket.is_socket()
    await process.start()
    await process.call("Init", Home=str(process.home))


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_what_is_no_socket_is_not_replaced(process: PluginProcess, kind: str) -> None:
    process.socket.parent.mkdir(parents=True)
    if kind == "file":
        process.socket.write_text("precious")
    else:
        process.socket.mkdir()
    with pytest.raises(DaemonError, match=rf"ended with status 1\n(?s:.*){process.socket} is there and is no socket"):
        await process.start()
    assert process.socket.is_dir() if kind == "directory" else process.socket.read_text() == "precious"


async def test_a_path_that_is_too_long_for_a_socket_is_an_error_that_says_so(tmp_path: Path) -> None:
    process = PluginProcess(tmp_path, {"GRAPHDRIVER_SOCKET": f"/run/{'x' * 110}"})
    with pytest.raises(DaemonError, match=r"ended with status 1\n(?s:.*)too long"):
        await process.start()
    assert "Traceback" not in process.daemon.log.read_text()


# Ends and beginnings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_orderly_also_with_idle_connections(
    process: PluginProcess, number: signal.Signals
) -> None:
    await process.start()
    async with EngineClient.connected(process.socket) as client:
        await client.call("/Plugin.Activate")
        os.kill(process.daemon.pid, number)
        assert await process.daemon.stop() == 0
    assert not process.socket.exists()


async def test_containers_outlive_an_orderly_end_and_a_kill(process: PluginProcess) -> None:
    await process.start()
    await process.call("Init", Home=str(process.home))
    await process.call("Create", ID="base")
    await process.call("CreateReadWrite", ID="c", Parent="base")
    answer = await process.call("Get", ID="c", MountLabel="")
    union = str(process.home / "layers/c/merged")
    assert answer == {"Dir": union, "Err": ""}
    for end in (process.daemon.stop, process.daemon.kill):
        await end()
        assert mounts_below(process.home) == [union]
        await process.start()
        # No Init: a managed plugin is restarted without one.
        assert await process.call("Get", ID="c", MountLabel="") == answer
        await process.call("Put", ID="c")
        assert mounts_below(process.home) == [union]
    await process.call("Put", ID="c")
    assert mounts_below(process.home) == []


async def test_a_damaged_memory_of_init_is_named(process: PluginProcess, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/init.json").write_text("{")
    with pytest.raises(DaemonError, match=rf"ended with status 1\n(?s:.*){tmp_path}/state/init\.json is damaged"):
        await process.start()
    assert "Traceback" not in process.daemon.log.read_text()


async def test_a_home_that_is_not_mounted_yet_is_not_made_anew(process: PluginProcess, tmp_path: Path) -> None:
    """At boot the plugin may come before the engine's file system; the engine's Init comes after it."""
    await process.start()
    await process.call("Init", Home=str(process.home))
    await process.call("Create", ID="base")
    await process.daemon.stop()
    (tmp_path / "docker").rename(tmp_path / "not mounted")
    await process.start()
    assert not process.home.exists()
    (tmp_path / "not mounted").rename(tmp_path / "docker")
    await process.call("Init", Home=str(process.home))
    assert await process.call("Exists", ID="base") == {"Exists": True}


async def test_a_signal_ends_it_while_a_repository_hangs(process: PluginProcess, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with served(tmp_path / "source", tmp_path / "cvmfs/test.example.org") as client:
        await process.start()
        await process.call("Init", Home=str(process.home))
        await _add_thin(process)
        stop(client.pid)
        getting = asyncio.create_task(process.call("Get", ID="c", MountLabel=""))
        await asyncio.sleep(0.3)
        assert not getting.done()
        # A managed plugin has ten seconds, of which requests get most; what hangs after that holds nothing up.
        assert 2 * server._SHUTDOWN_TIMEOUT < 9  # noqa: SLF001 - a busy machine takes longer than any bound on the end
        assert await process.daemon.stop() == 0
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, AssertionError)):
            await getting


async def _add_thin(process: PluginProcess) -> None:
    digest = "1e" * 32
    content = f'{{"version": "1.0", "layers": [{{"digest": "{digest}", "url": "cvmfs://test.example.org/{digest}"}}]}}'
    await process.call("Create", ID="thin")
    (process.home / "layers/thin/diff/thin.json").write_text(content)
    await process.call("CreateReadWrite", ID="c", Parent="thin")


async def test_an_unreachable_socket_directory_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = PluginProcess(tmp_path, {"GRAPHDRIVER_SOCKET": str(tmp_path / "file/cvmfs.sock")})
    with pytest.raises(DaemonError, match=r"ended with status 1\n(?s:.*)Not a directory|File exists"):
        await process.start()
    assert "Traceback" not in process.daemon.log.read_text()
