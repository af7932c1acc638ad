"""The commands that read, about the repository that the real server wrote."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.s3 import S3Access, s3_client
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN, GOLDEN_NAME
from tests.support.static_files import served
from tests.support.stratum1 import Replica
from tests.support.thin_repository import Ended, thin_repository

_EMPTY = "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"
"""The object of empty files."""


def _run(command: str, *arguments: str | Path, root: Path = GOLDEN, keys: Path = GOLDEN) -> Ended:
    return thin_repository(command, GOLDEN_NAME, *arguments, "--directory", root, "--keys", keys)


@pytest.fixture
def forgery(tmp_path: Path) -> Forgery:
    """A copy that is signed, with its public key beside it."""
    forgery = Forgery(tmp_path / "repository")
    (forgery.root / f"{GOLDEN_NAME}.pub").write_bytes(forged_key())
    return forgery


def test_info_tells_what_is_there() -> None:
    document = _run("info", "--json").document
    del document["meta"]
    assert document == {
        "repository": GOLDEN_NAME,
        "revision": 7,
        "published": "2026-11-24T07:30:37Z",
        "root": "f5a3fbb9f55fbf4a577aae4038ae1c22a591566d",
        "ttl": 240,
        "whitelist_expires": "2095-05-06T07:30:22Z",
        "certificate": "72:71:7F:29:7C:E1:0E:44:37:02:6C:03:8B:FB:23:B4:1B:7C:88:C9",
        "garbage_collectable": True,
        "tags": 4,
        "catalogs": 6,
        "files": 82,
        "directories": 31,
        "symbolic_links": 16,
        "special_files": 12,
        "size": 1281739,
    }
    lines = _run("info").output.splitlines()
    assert "garbage collectable  yes" in lines
    assert "symbolic links       16" in lines


@pytest.mark.parametrize(
    ("arguments", "paths"),
    [
        (["/dirs"], ["/dirs/a", "/dirs/emptydir", "/dirs/private", "/dirs/setgid", "/dirs/sticky"]),
        (["/dirs/a", "--tag", "v1", "--recursive"], ["/dirs/a/b", "/dirs/a/b/c"]),
        (["/files/small.txt"], ["/files/small.txt"]),
        (["/nested1/deep/"], ["/nested1/deep/nested2"]),
    ],
)
def test_list_shows_a_directory(arguments: Sequence[str], paths: Sequence[str]) -> None:
    document = _run("list", *arguments, "--json").document
    assert [entry["path"] for entry in document["entries"]][: len(paths)] == list(paths)


def test_list_shows_every_kind_of_file() -> None:
    lines = _run("list", "/special").output.splitlines()
    assert lines[1] == "crw-------   1     0     0   300, 70000 2023-11-14T22:13:23Z /special/chr-big"
    assert [line[0] for line in lines] == ["b", "c", "c", "p", "s"]
    (link,) = _run("list", "/links/rel").output.splitlines()
    assert link.endswith("/links/rel -> ../files/small.txt")
    entry = _run("list", "/xattrs/user", "--json").document["entries"][0]
    assert entry["xattrs"]["user.b"] == "2"
    (device,) = _run("list", "/special/blk-sda", "--json").document["entries"]
    assert device["device"] == [8, 0]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["/none"], 2, "/none is not in this revision"),
        (["dirs"], 2, "not an absolute path in the repository: 'dirs'"),
        (["/dirs/../files"], 2, "not an absolute path in the repository: '/dirs/../files'"),
        (["/", "--tag", "v9"], 1, "has no tag 'v9'"),
    ],
)
def test_list_says_what_is_not_there(arguments: Sequence[str], status: int, error: str) -> None:
    ended = _run("list", *arguments)
    assert (ended.status, ended.output) == (status, "")
    assert error in ended.error


def test_check_finds_nothing_wrong() -> None:
    ended = _run("check")
    assert ended.status == 0
    assert re.fullmatch(r"no problem: 3 revisions, 11 catalogs, 407 entries, 93 objects, \d+\.\d s\n", ended.output)
    assert _run("check", "--json", "--quick").document["problems"] == []


def test_check_ends_with_3_and_names_what_is_wrong(forgery: Forgery) -> None:
    forgery.edit("", "UPDATE catalog SET symlink = NULL WHERE name = 'small.txt'")
    forgery.seal()
    ended = _run("check", root=forgery.root, keys=forgery.root)
    assert ended.status == 3
    problem, summary = ended.output.splitlines()
    assert problem == (
        "/files/small.txt: its symlink column is NULL, which makes clients crash: "
        "publish it again: what is no symbolic link has an empty text there"
    )
    assert summary.startswith("1 problem: 4 revisions")
    ended = _run("check", "--json", root=forgery.root, keys=forgery.root)
    assert ended.status == 3
    assert '"place": "/files/small.txt"' in ended.output


def test_check_finds_nothing_wrong_with_a_replica(forgery: Forgery, tmp_path: Path) -> None:
    forgery.seal()
    replica = Replica(forgery.root, tmp_path / "replica")
    replica.snapshot()
    with served(replica.root) as url:
        ended = thin_repository("check", GOLDEN_NAME, "--url", url, "--keys", forgery.root)
    assert ended.output.startswith("no problem: 3 revisions")
    assert ended.status == 0


def test_what_is_not_signed_is_not_shown(forgery: Forgery, tmp_path: Path) -> None:
    forgery.seal()
    for command in ("info", "list"):
        ended = _run(command, root=forgery.root, keys=GOLDEN)
        assert (ended.status, ended.output) == (5, "")
        assert ".cvmfswhitelist is signed by none of the given public master keys" in ended.error
    ended = _run("info", keys=tmp_path)
    assert ended.status == 5
    assert f"{GOLDEN_NAME}.pub cannot be read" in ended.error


def test_a_place_must_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THIN_REPOSITORY_DIRECTORY", raising=False)
    ended = thin_repository("info", GOLDEN_NAME, "--keys", GOLDEN)
    assert ended.status == 2
    assert "REPOSITORY_STORE_ENDPOINT" in ended.error
    ended = thin_repository("check", GOLDEN_NAME, "--keys", GOLDEN, "--url", "http://127.0.0.1:1/")
    assert ended.status == 4
    assert "http://127.0.0.1:1/.cvmfswhitelist cannot be read" in ended.error


async def test_a_repository_in_a_bucket_is_read(bucket: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
    async with s3_client(bucket) as client:
        for path in GOLDEN.rglob("*"):
            if path.is_file() and path.name != _EMPTY[2:]:
                key = f"golden/{path.relative_to(GOLDEN)}"
                await client.put_object(Bucket=bucket.bucket, Key=key, Body=path.read_bytes())
    for name, value in bucket.repository_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REPOSITORY_STORE_PREFIX", "golden/")
    listed, *checked = [
        await asyncio.to_thread(thin_repository, *command, GOLDEN_NAME, "--keys", GOLDEN, "--json")
        for command in (["list"], ["check"], ["check", "--quick"])
    ]
    assert len(listed.document["entries"]) == 15
    for ended in checked:
        assert ended.status == 3
        (problem,) = json.loads(ended.output)["problems"]
        assert problem["what"] == f"its object data/e8/{_EMPTY[2:]} is missing"


@pytest.mark.parametrize("command", ["info", "list", "check"])
def test_help_has_examples(command: str) -> None:
    ended = thin_repository(command, "--help")
    assert ended.status == 0
    assert f"thin-repository {command} thin.example.org" in ended.output
