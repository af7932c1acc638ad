"""Every endpoint as the engine calls it, and what is refused at the boundary."""

from pathlib import Path
from typing import Any

import pytest

from services.graphdriver.plugin import server
from services.graphdriver.plugin.messages import InitRequest
from tests.graphdriver.plugin.conftest import Plugin, Plugins
from tests.support.engine_client import EngineClient
from tests.support.mounts import mounts_below

WITH_FIELDS = [
    "Create",
    "CreateReadWrite",
    "Remove",
    "Get",
    "Put",
    "Exists",
    "GetMetadata",
    "Diff",
    "Changes",
    "DiffSize",
]
"""Operations that need an ID, by Create's rule that a repeated request with a used-up body must not pass."""


async def _layers(plugin: Plugin) -> dict[str, bool]:
    """Make a base and a container on it."""
    await plugin.call("Create", ID="base", Parent="", MountLabel="", StorageOpt=None)
    await plugin.call("CreateReadWrite", ID="c", Parent="base", MountLabel="", StorageOpt={})
    return {"base": True, "c": True}


async def test_activation_has_no_body(bare: Plugin) -> None:
    async with bare.client() as client:
        answer = await client.call("/Plugin.Activate")
    assert (answer.status, answer.document) == (200, {"Implements": ["GraphDriver"]})


async def test_capabilities(plugin: Plugin) -> None:
    assert await plugin.call("Capabilities") == {"Capabilities": {"ReproducesExactDiffs": False}}


async def test_the_life_of_a_container(plugin: Plugin, home: Path) -> None:
    await _layers(plugin)
    assert await plugin.call("Exists", ID="c") == {"Exists": True}
    assert await plugin.call("Exists", ID="d") == {"Exists": False}
    answer = await plugin.call("Get", ID="c", MountLabel="")
    assert answer == {"Dir": str(home / "layers/c/merged"), "Err": ""}
    (Path(answer["Dir"]) / "new").write_text("12345")
    assert await plugin.call("DiffSize", ID="c", Parent="base") == {"Size": 5, "Err": ""}
    assert await plugin.call("Changes", ID="c", Parent="base") == {"Changes": [{"Path": "/new", "Kind": 1}], "Err": ""}
    assert (await plugin.call("GetMetadata", ID="c"))["Metadata"]["UpperDir"] == str(home / "layers/c/diff")
    status = (await plugin.call("Status"))["Status"]
    assert ["Mounted unions", "1"] in status
    assert all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in status)
    assert await plugin.call("Put", ID="c") == {"Err": ""}
    assert mounts_below(home) == []
    assert await plugin.call("Remove", ID="c") == {"Err": ""}
    assert await plugin.call("Remove", ID="c") == {"Err": ""}
    assert await plugin.call("Exists", ID="c") == {"Exists": False}


async def test_cleanup_unmounts_everything(plugin: Plugin, home: Path) -> None:
    await _layers(plugin)
    await plugin.call("Get", ID="c", MountLabel="")
    assert await plugin.call("Cleanup") == {"Err": ""}
    assert mounts_below(home) == []


async def test_a_name_that_is_no_text_is_shown_as_the_engine_shows_it(plugin: Plugin) -> None:
    await _layers(plugin)
    directory = (await plugin.call("Get", ID="c", MountLabel=""))["Dir"]
    (Path(directory) / "caf\udce9").touch()
    assert (await plugin.call("Changes", ID="c", Parent="base"))["Changes"] == [{"Path": "/caf\ufffd", "Kind": 1}]


# Before Init


@pytest.mark.parametrize("operation", [*WITH_FIELDS, "Status", "Cleanup"])
async def test_nothing_works_before_init(bare: Plugin, operation: str) -> None:
    async with bare.client() as client:
        answer = await client.call(f"/GraphDriver.{operation}", {"ID": "a"})
    assert answer.status == 503
    assert "has not initialised this driver yet (no Init)" in answer.error


async def test_no_layer_is_filled_before_init(bare: Plugin) -> None:
    async with bare.client() as client:
        await client.stream("/GraphDriver.ApplyDiff?id=a&parent=", b"x" * 1000)
        answer = await client.answer()
    assert answer.status == 503
    assert "no Init" in answer.error


# Init


@pytest.mark.parametrize(
    "document",
    [
        {"Home": "{home}"},
        {"Home": "{home}", "Opts": None, "UIDMaps": None, "GIDMaps": None},
        {"Home": "{home}", "Opts": [], "UIDMaps": [], "GIDMaps": [], "Future": {"more": 1}},
    ],
)
async def test_forms_of_init(bare: Plugin, home: Path, document: dict[str, Any]) -> None:
    await bare.call("Init", **{**document, "Home": str(home)})
    await bare.call("Create", ID="base")
    assert (home / "layers/base").is_dir()


_MAP = [{"container_id": 0, "host_id": 100000, "size": 65536}]


async def test_a_long_list_of_changes_is_whole(plugin: Plugin) -> None:
    await plugin.call("Create", ID="a", Parent="")
    directory = Path((await plugin.call("Get", ID="a"))["Dir"])
    names = [f"{number:04d}-{'x' * 100}" for number in range(3_000)]
    for name in names:
        (directory / name).touch()
    assert (await plugin.call("Changes", ID="a", Parent=""))["Changes"] == [
        {"Path": f"/{name}", "Kind": 1} for name in names
    ]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"UIDMaps": _MAP, "GIDMaps": _MAP}, "user namespaces (userns-remap) are not supported"),
        ({"GIDMaps": _MAP}, "user namespaces (userns-remap) are not supported"),
        ({"Opts": ["overlay2.size=10G"]}, "unknown storage option 'overlay2.size=10G': this driver is configured by"),
        ({"Home": "relative/path"}, "not an absolute path"),
        ({"Home": ""}, "Home"),
        ({"Home": None}, "Home"),
        ({"Home": "/var/lib/docker\0/cvmfs"}, "Home: Value error, a path has no NUL character"),
        ({"UIDMaps": "all"}, "UIDMaps"),
    ],
)
async def test_what_init_refuses(bare: Plugin, home: Path, fields: dict[str, object], complaint: str) -> None:
    async with bare.client() as client:
        answer = await client.call("/GraphDriver.Init", {"Home": str(home), **fields})
        assert answer.status == 400
        assert complaint in answer.error
        answer = await client.call("/GraphDriver.Create", {"ID": "a"})
        assert answer.status == 503


async def test_init_again_leaves_running_containers_alone(plugin: Plugin, home: Path) -> None:
    """As after a restart of the engine with live-restore."""
    await _layers(plugin)
    directory = (await plugin.call("Get", ID="c", MountLabel=""))["Dir"]
    await plugin.call("Init", Home=str(home))
    assert mounts_below(home) == [directory]
    assert (await plugin.call("Get", ID="c", MountLabel=""))["Dir"] == directory
    await plugin.call("Put", ID="c")
    assert mounts_below(home) == [directory]


async def test_init_again_needs_no_room_on_the_disk(plugin: Plugin, home: Path, tmp_path: Path) -> None:
    def files() -> dict[str, int]:
        return {str(path): path.lstat().st_ino for path in (tmp_path / "state").iterdir()}

    before = files()
    await plugin.call("Init", Home=str(home))
    assert files() == before


async def test_another_home_is_another_engines(plugin: Plugin, tmp_path: Path) -> None:
    await _layers(plugin)
    await plugin.call("Init", Home=str(tmp_path / "other"))
    assert await plugin.call("Exists", ID="base") == {"Exists": False}


async def test_a_restarted_plugin_needs_no_init(plugins: Plugins, home: Path) -> None:
    async with plugins.running() as plugin:
        await plugin.call("Init", Home=str(home))
        await _layers(plugin)
        directory = (await plugin.call("Get", ID="c", MountLabel=""))["Dir"]
    async with plugins.running() as plugin:
        assert (await plugin.call("Get", ID="c", MountLabel=""))["Dir"] == directory
        await plugin.call("Put", ID="c")
        assert mounts_below(home) == [directory]
        await plugin.call("Put", ID="c")
        assert mounts_below(home) == []


def test_the_engines_own_form_of_init_is_read() -> None:
    body = '{"Home":"/var/lib/docker/cvmfs","Opts":null,"UIDMaps":[],"GIDMaps":[]}'
    assert InitRequest.model_validate_json(body).home == "/var/lib/docker/cvmfs"


# What is refused


@pytest.mark.parametrize("operation", [*WITH_FIELDS, "Init"])
@pytest.mark.parametrize("body", [None, b"{}", b"null", b"[]", b"{", b'"x"', b"\xff"])
async def test_a_body_without_what_is_needed_is_refused(plugin: Plugin, operation: str, body: bytes | None) -> None:
    """The engine repeats a request whose body it has used up with an empty one."""
    await _layers(plugin)
    async with plugin.client() as client:
        answer = await client.call(f"/GraphDriver.{operation}", body)
    assert answer.status == 400
    assert f"/GraphDriver.{operation}" in answer.error
    if body is None:
        assert "came without a body" in answer.error


@pytest.mark.parametrize("operation", WITH_FIELDS)
@pytest.mark.parametrize("value", ["", "../x", "..", "/etc/passwd", "a/b", "x" * 193, "a\nb", 7, None, ["a"]])
async def test_what_is_no_id_is_refused(plugin: Plugin, home: Path, operation: str, value: object) -> None:
    (home / "x").mkdir()
    async with plugin.client() as client:
        answer = await client.call(f"/GraphDriver.{operation}", {"ID": value, "Parent": ""})
    assert answer.status == 400
    assert "ID" in answer.error
    assert (home / "x").is_dir()


@pytest.mark.parametrize("operation", ["Create", "CreateReadWrite", "Diff", "Changes"])
async def test_what_is_no_parent_is_refused(plugin: Plugin, operation: str) -> None:
    await _layers(plugin)
    async with plugin.client() as client:
        answer = await client.call(f"/GraphDriver.{operation}", {"ID": "c", "Parent": "../base"})
    assert answer.status == 400
    assert "Parent" in answer.error


@pytest.mark.parametrize("query", ["", "id=", "id=../x&parent=", "id=a/b", "parent=a"])
async def test_a_filled_layer_needs_an_id_too(plugin: Plugin, query: str) -> None:
    async with plugin.client() as client:
        await client.stream(f"/GraphDriver.ApplyDiff?{query}", b"x" * 1000)
        answer = await client.answer()
    assert answer.status == 400
    assert "not a layer id" in answer.error


async def test_options_of_a_layer_are_refused(plugin: Plugin) -> None:
    async with plugin.client() as client:
        for operation in ("Create", "CreateReadWrite"):
            answer = await client.call(f"/GraphDriver.{operation}", {"ID": "a", "StorageOpt": {"size": "10G"}})
            assert answer.status == 400
            assert answer.error == "--storage-opt size is not supported by this driver"
    assert await plugin.call("Exists", ID="a") == {"Exists": False}


@pytest.mark.parametrize("label", ['a",upperdir=/etc,context="b', "a\nb", "x" * 256, 7])
async def test_a_label_that_could_be_more_than_one_is_refused(plugin: Plugin, label: object) -> None:
    await _layers(plugin)
    async with plugin.client() as client:
        answer = await client.call("/GraphDriver.Get", {"ID": "c", "MountLabel": label})
    assert answer.status == 400
    assert "MountLabel" in answer.error


async def test_fields_of_later_engines_are_passed_over(plugin: Plugin) -> None:
    await plugin.call("Create", ID="a", Parent="", Future={"x": [1]})
    assert await plugin.call("Exists", ID="a", AlsoNew=True) == {"Exists": True}


@pytest.mark.parametrize(
    ("operation", "fields", "status", "complaint"),
    [
        ("Create", {"ID": "base"}, 500, "layer base exists already"),
        ("Create", {"ID": "a", "Parent": "x"}, 404, "no layer x below"),
        ("Get", {"ID": "x"}, 404, "no layer x below"),
        ("GetMetadata", {"ID": "x"}, 404, "no layer x below"),
        ("DiffSize", {"ID": "x"}, 404, "no layer x below"),
        ("Diff", {"ID": "x"}, 404, "no layer x below"),
        ("Diff", {"ID": "c", "Parent": "x"}, 400, "can be compared with its parent base only, not with x"),
        ("Diff", {"ID": "c"}, 400, "can be compared with its parent base only, not with nothing"),
        ("Changes", {"ID": "c", "Parent": "c"}, 400, "can be compared with its parent base only"),
    ],
)
async def test_errors_have_a_status_and_a_text(
    plugin: Plugin, operation: str, fields: dict[str, str], status: int, complaint: str
) -> None:
    await _layers(plugin)
    async with plugin.client() as client:
        answer = await client.call(f"/GraphDriver.{operation}", fields)
    assert (answer.status, list(answer.document)) == (status, ["Err"])
    assert complaint in answer.error


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/GraphDriver.Nothing", b"{}", 404),
        ("/VolumeDriver.Create", b"{}", 404),
        ("/GraphDriver.Create", b'{"ID": "%s"}' % (b"x" * (1 << 20)), 413),
    ],
)
async def test_every_error_is_one_that_the_engine_can_show(plugin: Plugin, path: str, body: bytes, status: int) -> None:
    async with plugin.client() as client:
        answer = await client.call(path, body)
    assert answer.status == status
    assert answer.error


async def test_a_fault_of_the_plugins_own_is_an_error_too(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_layer_id: object) -> bool:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(plugin.session.driver, "exists", fail)
    async with plugin.client() as client:
        answer = await client.call("/GraphDriver.Exists", {"ID": "a"})
        assert answer.status == 500
        assert "ZeroDivisionError" in answer.error
        assert (await client.call("/GraphDriver.Status", {})).status == 200


# Connections


async def test_many_calls_on_one_connection(plugin: Plugin) -> None:
    async with plugin.client() as client:
        for number in range(50):
            answer = await client.call("/GraphDriver.Create", {"ID": f"l{number}", "Parent": ""})
            assert answer.status == 200
            assert answer.headers.get("connection", "keep-alive").lower() == "keep-alive"
        # An error does not end it either.
        assert (await client.call("/GraphDriver.Create", {"ID": "l0"})).status == 500
        assert (await client.call("/GraphDriver.Create", None)).status == 400
        assert (await client.call("/GraphDriver.Exists", {"ID": "l0"})).document == {"Exists": True}


async def test_connections_are_kept_for_years(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine keeps them for ever; one that the server closes can cost a request its body."""
    monkeypatch.setattr("services.graphdriver.plugin.server._KEEP_ALIVE", 0.2)
    async with plugins.running() as plugin, plugin.client() as client:
        await client.call("/Plugin.Activate")
        assert await client.reader.read() == b""  # the constant is what ends it
    monkeypatch.undo()
    assert server._KEEP_ALIVE > 365 * 86400  # noqa: SLF001 - what was just seen to decide


async def test_ending_does_not_wait_for_idle_connections(plugins: Plugins) -> None:
    async with plugins.running() as plugin:
        idle = EngineClient.connected(plugin.socket)
        client = await idle.__aenter__()
        await client.call("/Plugin.Activate")
    assert not plugin.socket.exists()
    assert await client.reader.read() == b""
    await idle.__aexit__(None, None, None)
