"""The commands, as processes, against a real publisher."""

import asyncio
import json
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.common.layout import layer_home
from services.thinctl import commands
from tests.support.commands import Ended, run_module
from tests.support.publisher import REPOSITORY, TOKEN, make_layer, upload
from tests.thinctl.conftest import Site, thinctl


def _document(ended: Ended) -> Any:  # noqa: ANN401 - a JSON document
    assert ended.status == 0, ended.errors
    return json.loads(ended.out)


def test_the_status_is_shown(site: Site) -> None:
    document = _document(site.read("status", "--json"))
    assert (document["repository"], document["paused"], document["refused"]) == (REPOSITORY, None, 1)
    shown = site.read("status").out.decode()
    assert "publishing      goes on" in shown
    assert "3 published, 1 failed, 1 of the failed ones refused for good" in shown
    assert "transaction     none" in shown
    assert "found 4" in shown
    assert re.search(r"^images +none *$", shown, re.MULTILINE)


def test_publishers_are_shown(site: Site) -> None:
    (publisher,) = _document(site.read("publishers", "--json"))["publishers"]
    name = publisher["name"]
    assert name == socket.gethostname()
    row = rf"^{re.escape(name)} +(leading|following) +0 +0 "  # who leads is told with the next renewal
    assert re.search(row, site.read("publishers").out.decode(), re.MULTILINE)
    journal = site.publisher.state / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute(
            """
            INSERT INTO publishers (id, name, started_at, seen_at, lease_until, leads, left_at)
            VALUES ('22', 'another [one]', 0, 0, 1e11, 0, NULL)
            """
        )
    connection.close()
    try:
        shown = site.read("publishers").out.decode()
        assert re.search(r"^another \[one\] +following +0 +0 +\d+ d ago +\d+ d ago *$", shown, re.MULTILINE)
        assert re.search(r"^publishers +.*[12] following", site.read("status").out.decode(), re.MULTILINE)
    finally:
        with closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute("DELETE FROM publishers WHERE id = '22'")
        connection.close()


def test_layers_are_listed_and_selected(site: Site) -> None:
    everything = _document(site.read("list", "--json"))
    assert {layer["digest"] for layer in everything["layers"]} == {
        archive.digest for archive in (*site.published, site.refused)
    }
    times = [layer["updated_at"] for layer in everything["layers"]]
    assert times == sorted(times, reverse=True)
    for arguments in (
        ("--state", "failed"),
        ("--refused",),
        ("--reason", "OTHER.cern.ch"),
        ("--digest", site.refused.digest[:20]),
        ("--state", "failed", "--state", "announced"),
    ):
        document = _document(site.read("list", *arguments, "--json"))
        assert [layer["digest"] for layer in document["layers"]] == [site.refused.digest]
    few = site.read("list", "--limit", "3")
    assert "there are more than these 3: --all shows them" in few.errors
    shown = site.read("list", "--refused").out.decode()
    # Whole, since the output is no terminal.
    assert f"the layer is for repository other.cern.ch, this publisher writes {REPOSITORY}" in shown
    assert len(site.read("list", "--all").out.splitlines()) == 5


def test_all_pages_are_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.thinctl.commands._PAGE", 2)
    access = commands.Access(url=site.publisher.url, token=None)
    found, more = asyncio.run(commands.layers(access, [], limit=None))
    assert (len({layer.digest for layer in found}), more) == (4, False)
    found, more = asyncio.run(commands.layers(access, [], limit=3))
    assert (len(found), more) == (3, True)


def test_a_layer_is_shown_by_the_start_of_its_digest(site: Site) -> None:
    archive = site.published[0]
    document = _document(site.read("show", archive.digest[:12], "--json"))
    assert (document["digest"], document["state"]) == (archive.digest, "published")
    assert (document["archive_size"], document["tree_size"]) == (archive.size, 1)
    shown = site.read("show", f"sha256:{site.refused.digest}").out.decode()
    assert site.refused.digest in shown
    assert "refused" in shown
    assert "other.cern.ch" in shown


def test_a_pause_is_shown_and_ended(site: Site, tmp_path: Path) -> None:
    assert _document(site.change("pause", "--reason", "a [new] disk", "--json"))["paused"]["reason"]
    assert "a [new] disk" in site.read("status").out.decode()
    archive = make_layer(tmp_path, "paused")
    asyncio.run(upload(site.publisher.access, archive))
    assert _document(site.change("sweep", "--json")) == {"found": 1}
    late = site.change("retry", site.refused.digest, "--wait", "--timeout", "0.5")
    assert late.status == 6
    assert "the layers are not all published after 0.5 s" in late.errors
    resumed = site.change("resume")
    assert "goes on" in resumed.out.decode()
    asyncio.run(site.publisher.published(archive))


def test_a_refused_layer_that_is_tried_again_is_refused_with_its_reason(site: Site) -> None:
    ended = site.change("retry", site.refused.digest[:12], "--wait")
    assert ended.status == 3
    assert f"layer {site.refused.digest} is not published: the layer is for repository other.cern.ch" in ended.errors
    assert _document(site.change("retry", "--failed", "--json")) == {"restarted": 1}
    asyncio.run(site.publisher.becomes(site.refused.digest, "failed"))


def test_a_layer_that_has_gone_is_found_and_published_again(site: Site) -> None:
    agreed = site.change("check")
    assert agreed.status == 0, agreed.errors
    assert "repository, journal and bucket agree" in agreed.out.decode()
    archive = site.published[1]
    (site.publisher.root / layer_home(archive.digest)).unlink()
    checked = site.change("check", "--json")
    # Before that it says every second how far it is.
    *_, said = checked.errors.splitlines()
    assert (checked.status, said) == (7, "thinctl: repository, journal and bucket disagree about 1 of 5 layers")
    (found,) = json.loads(checked.out)["disagreements"]
    assert (found["digest"], found["kind"], found["harmless"]) == (archive.digest, "not_in_repository", False)
    (site.publisher.root / archive.digest).unlink()
    mended = site.change("check", "--retry")
    assert (mended.status, mended.errors.splitlines()[-1]) == (
        0,
        "tried again: 1; check once more when they are published",
    )
    shown = mended.out.decode()
    assert f"not_in_repository: 1\n  {found['meaning']}\n  to do: {found['remedy']}\n    {archive.digest}\n" in shown
    ended = site.change("retry", archive.digest[:12], "--wait")
    assert ended.status == 0, ended.errors
    assert f"{archive.digest[:12]}: published\n" in ended.errors
    assert site.change("check").status == 0


def test_beside_a_publisher_its_own_settings_are_enough(site: Site) -> None:
    # As a process of its own, which is how it is run.
    ended = asyncio.run(run_module("services.thinctl", "resume", "--json", env=site.publisher.environment))
    assert _document(ended)["repository"] == REPOSITORY
    everywhere = {**site.publisher.environment, "PUBLISHER_HOST": "0.0.0.0"}  # noqa: S104 - nothing is bound
    assert _document(thinctl("status", "--json", env=everywhere))


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("show", "abcd"), 5, "no layer abcd has been announced"),
        (("show", "f" * 64), 5, "`thinctl sweep` looks for it"),
        (("show", "xyz"), 2, "not a sha256 digest"),
        (("retry",), 2, "name layers, or give --failed"),
        (("retry", "abcd", "--failed"), 2, "name layers, or give --failed"),
        (("retry", "--failed", "--wait"), 2, "--wait is for layers that are named"),
        (("sweep",), 4, "the token is missing or wrong: name the file"),
        (("check",), 4, "the token is missing or wrong"),
        (("sweep", "--token-file", "/nonexistent"), 2, "--token-file: cannot read /nonexistent"),
        (("status", "--publisher", "http://127.0.0.1:1"), 3, "is it up, and is --publisher right?"),
        (("status", "--publisher", "{store}"), 3, "is --publisher the URL of a publisher?"),
        (("status", "--publisher", "nonsense"), 3, "is --publisher right?"),
        (("list", "--digest", "XYZ"), 3, "digest is the start of a digest"),
        (("list", "--state", "lost"), 2, "'lost' is not one of"),
    ],
)
def test_errors_have_their_exit_status_and_say_what_to_do(
    site: Site, arguments: tuple[str, ...], status: int, text: str
) -> None:
    ended = site.read(*(argument.format(store=site.publisher.access.endpoint) for argument in arguments))
    assert (ended.status, ended.out) == (status, b""), ended.errors
    assert text in ended.errors
    assert "Traceback" not in ended.errors


def test_a_wrong_token_changes_nothing_and_is_not_shown(site: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-wrong-token-of-the-tests")
    ended = site.read("pause", "--token-file", tmp_path / "token")
    assert (ended.status, "the token is missing or wrong" in ended.errors) == (4, True)
    assert "a-wrong-token" not in ended.errors
    assert _document(site.read("status", "--json"))["paused"] is None


def test_a_token_may_come_from_the_environment_and_a_file_that_it_names(site: Site) -> None:
    for env in ({"THINCTL_TOKEN": TOKEN}, {"THINCTL_TOKEN_FILE": str(site.token_file)}):
        env["THINCTL_PUBLISHER"] = site.publisher.url
        assert thinctl("resume", env=env).status == 0
    wrong = thinctl("resume", env={"THINCTL_TOKN": "x"})
    assert wrong.status == 2
    assert "THINCTL_TOKN is not a setting: is THINCTL_TOKEN meant?" in wrong.errors


def test_a_wait_that_is_too_long_says_so(site: Site) -> None:
    ended = site.change("sweep", "--timeout", "0.0001")
    assert ended.status == 6
    assert "the sweep has not ended after 0.0001 s; the publisher goes on" in ended.errors


def test_the_help_has_examples_and_exit_statuses_and_no_way_to_give_a_token() -> None:
    ended = thinctl("--help")
    assert b"docker compose exec publisher thinctl status" in ended.out
    assert b"Exit status:" in ended.out
    for command in ("status", "publishers", "list", "show", "retry", "sweep", "pause", "resume", "check"):
        shown = thinctl(command, "--help").out.decode()
        assert f"thinctl {command}" in shown
        assert "Example" in shown
        assert "--json" in shown
        assert "--token " not in shown
