"""Wish lists in files, directories and on web servers, and their last good versions."""

import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.errors import InvalidValueError
from services.common.settings import SettingsError
from services.converter.model import WishList
from services.converter.wishlist.sources.download import Downloader
from services.converter.wishlist.sources.kept import KeptLists
from services.converter.wishlist.sources.lists import ListState, WishLists
from services.converter.wishlist.sources.places import parse_place
from services.converter.wishlist.tree import SIZE_LIMIT
from tests.support.list_server import ListServer
from tests.support.registries import Authority

_PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"


def _content(*tags: str, more: str = "") -> str:
    images = "".join(f"- q.io/n/a:{tag}\n" for tag in tags)
    return f"version: 2\ndefaults: {{repositories: a.example.org}}\nimages:\n{images}{more}"


def _tags(wish_list: WishList) -> str:
    return " ".join(str(getattr(wish.tags, "tag", "")) for wish in wish_list.wishes)


class _Reader:
    """Reads the lists of one place as a process does that keeps running, or as one that starts anew."""

    def __init__(self, place: str, kept: Path, ca_file: Path | None, credentials: Path | None = None) -> None:
        self._place = place
        self._kept = kept
        self._ca_file = ca_file
        self._credentials = credentials

    @asynccontextmanager
    async def started(self) -> AsyncIterator[WishLists]:
        opened = Downloader.opened(patience=30, ca_file=self._ca_file, credentials=self._credentials)
        async with opened as downloader:
            yield WishLists(places=[parse_place(self._place)], kept=KeptLists(self._kept), downloader=downloader)

    async def states(self) -> tuple[ListState, ...]:
        async with self.started() as lists:
            return await lists.states()

    async def state(self) -> ListState:
        (state,) = await self.states()
        return state


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept"


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    async with _Reader(str(path), kept, None).started() as lists:
        path.write_text(_content("1"))
        (first,) = await lists.read()
        (same,) = await lists.read()
        path.write_text(_content("2", "3"))
        (second,) = await lists.read()
    assert (first.source, first.complete, _tags(first)) == (str(path), True, "1")
    assert same is first
    assert (second.complete, _tags(second)) == (True, "2 3")


async def test_a_broken_version_takes_nothing_back(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    reader = _Reader(str(path), kept, None)
    path.write_text(_content("1", "2"))
    assert (await reader.state()).wish_list.complete
    for broken in ("", "a: [", "version: 2\nimages: x\n", "<html>not found</html>"):
        path.write_text(broken)
        state = await reader.state()
        assert (state.wish_list.complete, _tags(state.wish_list)) == (False, "1 2")
        assert state.problems
    path.write_text(_content("3"))
    state = await reader.state()
    assert (state.wish_list.complete, _tags(state.wish_list), state.problems) == (True, "3", ())


async def test_of_a_version_with_errors_what_is_right_counts_and_what_was_wished_stays(
    tmp_path: Path, kept: Path
) -> None:
    path = tmp_path / "list.yaml"
    reader = _Reader(str(path), kept, None)
    path.write_text(_content("1", "2"))
    await reader.state()
    for _ in range(2):  # what is broken does not become the last good version
        path.write_text(_content("3", "2", "x/y", "x y"))
        state = await reader.state()
        assert (state.wish_list.complete, _tags(state.wish_list)) == (False, "3 2 1")
        assert [problem.origin.line for problem in state.problems] == [6, 7]


async def test_policies_stay_while_a_list_is_broken(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    reader = _Reader(str(path), kept, None)
    path.write_text(_content("1", more=f"policies: [{{name: p, images: '*', keys: {json.dumps(_PEM)}}}]\n"))
    await reader.state()
    path.write_text(_content("1", ":"))
    assert [policy.name for policy in (await reader.state()).wish_list.policies] == ["p"]


async def test_a_file_that_is_gone_is_no_deletion(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    reader = _Reader(str(path), kept, None)
    path.write_text(_content("1"))
    await reader.state()
    path.unlink()
    state = await reader.state()
    assert (state.wish_list.source, state.wish_list.complete, _tags(state.wish_list)) == (str(path), False, "1")
    assert state.trouble == f"cannot read {path}: No such file or directory"


async def test_a_pipe_is_not_waited_for(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    os.mkfifo(path)
    assert (await _Reader(str(path), kept, None).state()).trouble == f"{path} is no file: a wish list is one"


async def test_a_file_that_never_was_is_an_incomplete_list(tmp_path: Path, kept: Path) -> None:
    state = await _Reader(str(tmp_path / "none.yaml"), kept, None).state()
    assert (state.wish_list.complete, state.wish_list.wishes) == (False, ())
    assert state.trouble is not None


async def test_a_directory_has_a_list_in_every_file(tmp_path: Path, kept: Path) -> None:
    directory = tmp_path / "lists"
    directory.mkdir()
    for name, tag in (("b.yaml", "2"), ("a.yml", "1"), (".hidden.yaml", "x"), ("notes.txt", "y"), ("c.yaml", "3")):
        (directory / name).write_text(_content(tag))
    reader = _Reader(str(directory), kept, None)
    assert [_tags(state.wish_list) for state in await reader.states()] == ["1", "2", "3"]
    (directory / "b.yaml").unlink()
    assert [_tags(state.wish_list) for state in await reader.states()] == ["1", "3"]
    directory.rename(tmp_path / "elsewhere")
    for _ in range(2):
        states = await reader.states()
        assert [(_tags(state.wish_list), state.wish_list.complete) for state in states] == [("1", False), ("3", False)]
        directory.mkdir(exist_ok=True)  # as where something is not mounted
    assert states[0].trouble is not None
    assert "no wish list (*.yaml) in the directory" in states[0].trouble


async def test_a_name_that_cannot_be_shown_is_told(tmp_path: Path, kept: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_text(_content("1"))
    (state,) = await _Reader(str(tmp_path), kept, None).states()
    assert state.trouble == f"the name of a wish list in {tmp_path} cannot be shown: rename '\\udcff.yaml'"


async def test_a_key_is_read_again_when_it_changes(tmp_path: Path, kept: Path) -> None:
    (tmp_path / "list.yaml").write_text(_content("1", more="policies: [{name: p, keys: k.pub}]\n"))
    (tmp_path / "k.pub").write_text(_PEM)
    async with _Reader(str(tmp_path / "list.yaml"), kept, None).started() as lists:
        (first,) = await lists.read()
        (tmp_path / "k.pub").write_text(_PEM.replace("AAAA", "BBBB"))
        (second,) = await lists.read()
        (tmp_path / "k.pub").unlink()
        (third,) = await lists.read()
    assert first.policies[0].keys[0].pem == _PEM.encode()
    assert b"BBBB" in second.policies[0].keys[0].pem
    # Without its key nothing of the list can be relied on, nor is anything dropped.
    assert (third.complete, third.wishes, third.policies) == (False, (), ())


async def test_a_broken_kept_version_is_told(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "list.yaml"
    reader = _Reader(str(path), kept, None)
    path.write_text(_content("1"))
    await reader.state()
    (file,) = kept.iterdir()
    file.write_bytes(b"\0")
    path.unlink()
    trouble = (await reader.state()).trouble
    assert trouble is not None
    assert "is no kept wish list" in trouble


async def test_a_last_good_version_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "list.yaml").write_text(_content("1"))
    state = await _Reader(str(tmp_path / "list.yaml"), tmp_path / "file" / "kept", None).state()
    assert (state.wish_list.complete, _tags(state.wish_list)) == (True, "1")
    assert state.trouble is not None


async def test_a_url_is_fetched_only_where_it_has_changed(
    list_server: ListServer, authority: Authority, kept: Path
) -> None:
    reader = _Reader(list_server.url, kept, authority.certificate)
    for etag, last_modified in (('"a"', None), (None, "Mon, 04 May 2026 07:00:00 GMT"), ('"b"', "x")):
        list_server.etag, list_server.last_modified = etag, last_modified
        list_server.content = _content("1").encode()
        assert _tags((await reader.state()).wish_list) == "1"
        list_server.content = b"unread"
        state = await reader.state()  # of a process that starts anew
        assert (state.wish_list.complete, _tags(state.wish_list), state.trouble) == (True, "1", None)
        asked = list_server.asked[-1].headers
        assert (asked.get("If-None-Match"), asked.get("If-Modified-Since")) == (etag, last_modified)


@pytest.mark.parametrize("status", [204, 301, 401, 403, 404, 429, 500, 503])
async def test_a_server_in_trouble_takes_nothing_back(
    list_server: ListServer, authority: Authority, kept: Path, status: int
) -> None:
    reader = _Reader(list_server.url, kept, authority.certificate)
    list_server.content = _content("1").encode()
    await reader.state()
    list_server.status = status
    state = await reader.state()
    assert (state.wish_list.complete, _tags(state.wish_list)) == (False, "1")
    assert state.trouble is not None
    assert list_server.url in state.trouble


async def test_a_server_that_is_gone_or_not_trusted_takes_nothing_back(
    list_server: ListServer, authority: Authority, kept: Path
) -> None:
    list_server.content = _content("1").encode()
    await _Reader(list_server.url, kept, authority.certificate).state()
    not_trusted = await _Reader(list_server.url, kept, None).state()
    assert not_trusted.trouble is not None
    assert "certificate" in not_trusted.trouble
    assert (not_trusted.wish_list.complete, _tags(not_trusted.wish_list)) == (False, "1")
    await list_server.stop()
    gone = await _Reader(list_server.url, kept, authority.certificate).state()
    assert (gone.trouble is not None, _tags(gone.wish_list)) == (True, "1")


@pytest.mark.parametrize("location", ["http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://["])
async def test_redirects_away_from_https_are_not_followed(
    list_server: ListServer, authority: Authority, kept: Path, location: str
) -> None:
    list_server.location = location
    state = await _Reader(list_server.url, kept, authority.certificate).state()
    assert state.trouble is not None
    assert "redirects" in state.trouble
    assert len(list_server.asked) == 1


async def test_redirects_are_followed_a_few_times(list_server: ListServer, authority: Authority, kept: Path) -> None:
    list_server.location = "/elsewhere.yaml"
    state = await _Reader(list_server.url, kept, authority.certificate).state()
    assert state.trouble == f"{list_server.url} redirects more than 5 times"
    assert len(list_server.asked) == 6


def _credential(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("_", "-")).write_text(content + "\n")


async def test_a_server_is_shown_the_credentials_that_are_for_it(
    list_server: ListServer, authority: Authority, kept: Path, tmp_path: Path
) -> None:
    list_server.content = _content("1").encode()
    host = list_server.url.split("/")[2]
    directory = tmp_path / "credentials"
    reader = _Reader(f"https://{host}/group%2Fproject/lists/a.yaml", kept, authority.certificate, directory)

    async def shown() -> str | None:
        assert (await reader.state()).trouble is None
        return list_server.asked[-1].headers.get("Authorization")

    _credential(directory / "elsewhere.example.org", token="another's")
    _credential(directory / host / "group" / "project", token="another project's")
    assert await shown() is None
    _credential(directory / host.replace(":", "_"), username="user", password="secret")
    assert await shown() == f"Basic {base64.b64encode(b'user:secret').decode()}"
    _credential(directory / host / "group%2Fproject", token="the-projects")
    assert await shown() == "Bearer the-projects"


async def test_credentials_do_not_follow_to_another_server(
    list_server: ListServer, authority: Authority, kept: Path, tmp_path: Path
) -> None:
    host, port = list_server.url.split("/")[2].split(":")
    _credential(tmp_path / "credentials" / f"{host}_{port}", token="of-the-server")
    # Another name of the same server is another server.
    list_server.location = f"https://localhost:{port}/list.yaml"
    reader = _Reader(list_server.url, kept, authority.certificate, tmp_path / "credentials")
    assert (await reader.state()).trouble is not None
    shown = [(asked.host, asked.headers.get("Authorization")) for asked in list_server.asked]
    assert shown[:2] == [(f"{host}:{port}", "Bearer of-the-server"), (f"localhost:{port}", None)]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"username": "user"}, "a credential is username and password"),
        ({"identity_token": "secret"}, "an identity-token, which is for registries"),
        ({"token": "sec\x01ret"}, "characters that no credential has"),
    ],
)
async def test_credentials_that_are_none_are_told_and_nobody_is_asked_without(
    list_server: ListServer, authority: Authority, kept: Path, tmp_path: Path, files: dict[str, str], text: str
) -> None:
    _credential(tmp_path / list_server.url.split("/")[2], **files)
    state = await _Reader(list_server.url, kept, authority.certificate, tmp_path).state()
    assert state.trouble is not None
    assert text in state.trouble
    assert "secret" not in state.trouble
    assert list_server.asked == []


async def test_a_list_without_end_is_not_read_to_it(list_server: ListServer, authority: Authority, kept: Path) -> None:
    list_server.content = b"#" * (SIZE_LIMIT + 100)
    (problem,) = (await _Reader(list_server.url, kept, authority.certificate).state()).problems
    assert f"at most {SIZE_LIMIT >> 20} MiB" in problem.text


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("http://example.org/l.yaml", "by https alone"),
        ("file:///etc/passwd", "by https alone"),
        ("git+https://me:secret@example.org/lists//recipe.yaml@main", "at which its server has the file of a branch"),
        ("https://me:secret@example.org/l.yaml", "a user in the URL"),
        ("https:///l.yaml", "without host"),
        ("", "not the place"),
        ("a\0b", "not the place"),
    ],
)
def test_what_is_no_place(place: str, text: str) -> None:
    with pytest.raises(InvalidValueError, match=text) as refused:
        parse_place(place)
    assert "secret" not in str(refused.value)


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(SettingsError, match="no certificates"):
        async with Downloader.opened(patience=1, ca_file=tmp_path / "ca.pem"):
            pass
