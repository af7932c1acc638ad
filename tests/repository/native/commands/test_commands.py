"""`thin-repository`, as operators run it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.repository.native.errors import RepositoryBusyError
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.repository.native.conftest import NAME
from tests.support.thin_repository import Ended, thin_repository


class Tool:
    """The program, about one repository."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root = root
        self.keys = keys

    def run(self, command: str, *arguments: str | Path) -> Ended:
        place: list[str | Path] = [NAME, "--directory", self.root, "--keys", self.keys]
        return self.call(*command.split(), *place, *arguments)

    def call(self, *arguments: str | Path) -> Ended:
        return thin_repository(*arguments)

    def reader(self) -> RepositoryReader:
        public = KeyFiles(self.keys, NAME).public.read_bytes()
        return RepositoryReader(DirectoryStorage(self.root), name=NAME, master_keys=[public])


@pytest.fixture
def tool(tmp_path: Path, keys: KeyFiles) -> Tool:
    return Tool(tmp_path / "repository", keys.key.parent)


@pytest.fixture
def created(tool: Tool) -> Tool:
    assert tool.run("create").status == 0
    return tool


def test_a_repository_and_its_keys_are_made(tmp_path: Path) -> None:
    tool = Tool(tmp_path / "repository", tmp_path / "keys")
    meta = tmp_path / "meta.json"
    meta.write_text('{"administrator": "Me"}')
    made = tool.run("create", "--json", "--meta", meta, "--hash", "shake128").document
    assert made["repository"] == NAME
    assert made["revision"] == 1
    assert made["root"].endswith("-shake128")
    assert Path(made["public_key"]) == tmp_path / "keys" / f"{NAME}.pub"
    assert stat.S_IMODE((tmp_path / "keys" / f"{NAME}.masterkey").stat().st_mode) == 0o400
    with tool.reader() as reader:
        head = reader.head()
        assert json.loads(reader.meta(head)) == {"administrator": "Me"}
        assert [entry.path for entry in reader.newest(head).walk(hidden=True)] == [b""]
    assert (tool.root / ".cvmfs_master_replica").exists()


def test_web_servers_can_read_it_whatever_the_umask_is(tool: Tool) -> None:
    """An administrator's shell often keeps others out; for clients the whole repository would be gone with it."""
    program = (sys.executable, "-m", "services.repository.native.commands")
    arguments = ("create", NAME, "--directory", tool.root, "--keys", tool.keys)
    subprocess.run([*program, *arguments], check=True, capture_output=True, umask=0o077, timeout=300)
    for path in (tool.root, *tool.root.rglob("*")):
        if not path.name.endswith("-lock"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_replicas_can_be_forbidden(tool: Tool) -> None:
    assert "created" in tool.run("create", "--no-replicas").output
    assert not (tool.root / ".cvmfs_master_replica").exists()


def test_tags(created: Tool) -> None:
    assert created.run("tag add", "release-1", "--description", "the first").output == "release-1 is revision 1\n"
    assert created.run("tag add", "release-2", "--revision", "1", "--json").document["revision"] == 1
    shown = created.run("tag list", "--json").document["tags"]
    assert [(tag["name"], tag["revision"], tag["description"]) for tag in shown] == [
        ("release-1", 1, "the first"),
        ("release-2", 1, ""),
        ("trunk", 1, "current HEAD"),
    ]
    assert "the first" in created.run("tag list").output
    with created.reader() as reader:
        head = reader.head()
        assert reader.tagged(head, "release-1").stat(b"") is not None
        assert head.manifest.revision == 1
    assert created.run("tag remove", "release-1", "release-2", "--json").document == {
        "removed": ["release-1", "release-2"]
    }
    assert [tag["name"] for tag in created.run("tag list", "--json").document["tags"]] == ["trunk"]


@pytest.mark.parametrize(
    ("command", "arguments", "status", "message"),
    [
        ("tag add", ["trunk"], 2, "kept by the publisher itself"),
        ("tag add", ["a b"], 2, "not a name of a tag"),
        ("tag add", ["x", "--revision", "2"], 1, "no revision 2"),
        ("tag remove", ["x", "y"], 1, "there is no tag x, y"),
        ("create", [], 1, "holds a repository already"),
        ("create", ["--compressor", "lzma"], 2, "lzma"),
        ("resign", ["--drop-others", "--whitelist", "pyproject.toml"], 2, "exclude each other"),
        ("resign", ["--whitelist", "pyproject.toml"], 5, "not a text, a line"),
    ],
)
def test_refusals(created: Tool, command: str, arguments: list[str], status: int, message: str) -> None:
    before = {path: path.read_bytes() for path in created.root.iterdir() if path.is_file()}
    ended = created.run(command, *arguments)
    assert ended.status == status
    assert message in ended.error
    assert {path: path.read_bytes() for path in created.root.iterdir() if path.is_file()} == before


def test_a_tag_is_not_moved_by_accident(created: Tool) -> None:
    created.run("tag add", "x")
    ended = created.run("tag add", "x")
    assert ended.status == 1
    assert "remove it first" in ended.error


def test_a_name_that_no_repository_has_is_a_wrong_argument(tool: Tool) -> None:
    ended = tool.call("create", "../x", "--directory", tool.root)
    assert (ended.status, "not a repository name" in ended.error) == (2, True)


def test_what_is_no_repository_is_named(tool: Tool) -> None:
    ended = tool.run("tag list")
    assert ended.status == 1
    assert "create a repository there, or import" in ended.error


def test_another_writer_is_not_waited_for(created: Tool) -> None:
    with DirectoryStorage(created.root).exclusive():
        ended = created.run("tag add", "x")
    assert ended.status == 6
    assert "another process writes" in ended.error


def test_a_head_that_somebody_else_signed_is_not_built_on(created: Tool, tmp_path: Path) -> None:
    other = Tool(tmp_path / "other", tmp_path / "other-keys")
    assert other.run("create").status == 0
    for name in (".cvmfspublished", ".cvmfsreflog"):
        (created.root / name).write_bytes((other.root / name).read_bytes())
    for path in (other.root / "data").glob("??/*"):
        (created.root / path.relative_to(other.root)).write_bytes(path.read_bytes())
    ended = created.run("tag add", "x")
    assert ended.status == 5
    assert "does not name the certificate" in ended.error


def test_the_whitelist_is_signed_here(created: Tool) -> None:
    (created.root / ".cvmfswhitelist").write_bytes(b"damaged")
    assert created.run("tag list").status == 5
    assert "clients accept the whitelist until" in created.run("resign").output
    assert created.run("resign", "--drop-others", "--json").document["expires"].endswith(":00:00Z")
    with created.reader() as reader:
        assert reader.head().manifest.revision == 1


def test_the_whitelist_is_signed_elsewhere(created: Tool, tmp_path: Path, keys: KeyFiles) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (keys.master, keys.certificate):
        (elsewhere / path.name).write_bytes(path.read_bytes())
        (elsewhere / path.name).chmod(0o400)
    keys.master.unlink()
    assert created.run("resign").status == 5
    signed = tmp_path / "signed"
    made = created.call("sign-whitelist", NAME, "--keys", elsewhere, "--days", "90", "--output", signed)
    assert made.status == 0, made.error
    nowhere = tmp_path / "missing/signed"
    failed = created.call("sign-whitelist", NAME, "--keys", elsewhere, "--output", nowhere)
    assert (failed.status, f"cannot write {nowhere}: No such file" in failed.error) == (4, True)
    assert created.run("resign", "--whitelist", signed).status == 0
    assert (created.root / ".cvmfswhitelist").read_bytes() == signed.read_bytes()


def test_an_age_that_is_no_number_keeps_everything(created: Tool) -> None:
    ended = created.run("gc", "--delete", "--keep-revisions", "1", "--keep-days", "nan")
    assert (ended.status, "nan is no number" in ended.error) == (2, True)


def test_garbage_is_shown_before_it_is_deleted(created: Tool) -> None:
    orphan = created.root / "data/00/00000000000000000000000000000000000000"
    orphan.write_bytes(b"left over")
    os.utime(orphan, (0, 0))
    shown = created.run("gc")
    assert shown.output == ("kept: 1 revisions from 1 to 1, and 1 tags\nto delete: 1 objects, 9 bytes\n")
    assert orphan.exists()
    deleted = created.run("gc", "--delete", "--keep-revisions", "1", "--keep-days", "0", "--json").document
    assert deleted == {"deleted": True, "kept": [1], "tags": 1, "references": 0, "objects": 1, "bytes": 9}
    assert not orphan.exists()
    with DirectoryStorage(created.root).using(patience=0):
        ended = created.run("gc", "--delete", "--wait", "0")
    assert ended.status == 6
    assert "published to" in ended.error


def test_it_is_a_program() -> None:
    program = Path(sys.executable).with_name("thin-repository")
    ended = subprocess.run([program, "tag", "list"], capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 2
    assert "Missing argument 'NAME'" in ended.stderr


def test_sigterm_ends_it_in_order(created: Tool) -> None:
    program = [sys.executable, "-m", "services.repository.native.commands"]
    place = [NAME, "--directory", str(created.root), "--keys", str(created.keys)]
    storage = DirectoryStorage(created.root)
    with storage.using(patience=0), subprocess.Popen([*program, "gc", *place, "--delete"]) as process:
        while not closed(storage):
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=300) == 143


def closed(storage: DirectoryStorage) -> bool:
    """Tell whether a collector waits for its turn."""
    try:
        with storage.using(patience=0.1):
            return False
    except RepositoryBusyError:
        return True


def test_help_names_the_exit_statuses_and_examples(tool: Tool) -> None:
    shown = tool.call("--help").output
    assert "6  another process writes to the repository" in shown
    for command in ("create", "gc", "import", "remove", "resign", "sign-whitelist", "tag add", "tag list"):
        assert "Example" in tool.call(*command.split(), "--help").output
