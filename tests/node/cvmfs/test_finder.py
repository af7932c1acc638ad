"""Looking layers up in repositories, which may be absent or hostile, and waiting for them."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from harness.processes import wait_until
from services.common.descriptor import LayerUrl
from services.common.layout import LayerLayout, layer_home, sidecar_path
from services.node.cvmfs import finder
from services.node.errors import LayerNotPublishedError, RepositoryError
from tests.node.conftest import Core
from tests.support.repositories import Repository, digest_of


async def _wait(core: Core, *urls: LayerUrl, seconds: float) -> None:
    await core.finder.wait(urls, holder="test", timeout=seconds)


# What is there


async def test_a_published_layer_is_found_under_its_real_path(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    assert await core.find(url) == {url: repository.tree("one")}
    assert core.repositories.in_use() == {"test.example.org": 1}
    core.repositories.release(holder="test")
    assert core.repositories.in_use() == {}


async def test_a_mask_is_made_for_deletions_only(core: Core, repository: Repository) -> None:
    plain = repository.publish("one", {"a": "one"})
    deleting = repository.publish("two", {"b": "two"}, whiteouts=[b"a"])
    findings = await core.finder.find([plain, deleting], holder="test")
    assert findings.found[plain].mask is None
    mask = findings.found[deleting].mask
    assert mask is not None
    assert os.listdir(mask) == ["a"]


async def test_deletions_that_the_tree_holds_itself_need_no_mask(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"}, whiteouts=[b"x"])
    place = repository.root / sidecar_path(digest_of("one"))
    place.write_text(place.read_text().replace('"listed"', '"in-tree"'))
    assert (await core.finder.find([url], holder="test")).found[url].mask is None


async def test_a_layer_without_sidecar_is_not_whole_yet(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    sidecar = repository.root / sidecar_path(digest_of("one"))
    content = sidecar.read_bytes()
    sidecar.unlink()
    assert await core.find(url) == {}
    sidecar.write_bytes(content)
    assert await core.find(url) == {url: repository.tree("one")}


async def test_a_converters_layer_needs_no_sidecar(core: Core, repository: Repository) -> None:
    """What is in unpacked.cern.ch runs as it is: `.layers/XX/DIGEST/layerfs`, metadata in a directory of its own."""
    url = repository.publish("one", {"a": "one"}, layout=LayerLayout.DUCC)
    (repository.root / sidecar_path(digest_of("one"))).unlink()
    (repository.root / layer_home(digest_of("one")) / ".metadata").mkdir()
    assert await core.find(url) == {url: repository.tree("one")}


async def test_a_sidecar_counts_whatever_the_layout(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"}, whiteouts=[b"x"], layout=LayerLayout.DUCC)
    assert (await core.finder.find([url], holder="test")).found[url].mask is not None


async def test_a_layer_that_is_gone_again_is_not_found(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    assert await core.find(url)
    (repository.root / digest_of("one")).unlink()
    assert await core.find(url) == {}


async def test_a_file_in_a_layers_place_is_no_layer(core: Core, repository: Repository) -> None:
    url = repository.url("one")
    (repository.root / digest_of("one")).write_text("not a directory")
    assert await core.find(url) == {}


# What is refused


async def test_a_repository_that_is_not_allowed_is_not_even_looked_at(core: Core, cvmfs_root: Path) -> None:
    secret = Repository(cvmfs_root, "secret.example.org")
    url = secret.publish("one", {"a": "one"})
    with pytest.raises(
        RepositoryError,
        match=r"secret\.example\.org is not among those allowed here \(other\.example\.org, test\.example\.org\): "
        "add it to SETTING_OF_REPOSITORIES",
    ):
        await core.find(url)
    assert core.repositories.in_use() == {}


async def test_one_bad_repository_does_not_hide_the_others(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    findings = await core.finder.find([LayerUrl(f"cvmfs://nowhere.org/{digest_of('x')}"), url], holder="test")
    assert list(findings.found) == [url]
    assert list(findings.errors) == ["nowhere.org"]


async def test_a_repository_that_is_not_there_says_what_to_try(core: Core) -> None:
    with pytest.raises(RepositoryError, match=r"other\.example\.org is not usable at .*cvmfs_config probe other\.exa"):
        await core.find(LayerUrl(f"cvmfs://other.example.org/{digest_of('x')}"))
    assert core.repositories.in_use() == {}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "not a layer sidecar"),
        (b"", "not a layer sidecar"),
        (b'{"version": "2"}', "not a layer sidecar: version"),
        (b"x" * 1001, "is larger than 1000 bytes"),
    ],
)
async def test_an_unusable_sidecar_is_an_error_and_no_missing_layer(
    core: Core, repository: Repository, monkeypatch: pytest.MonkeyPatch, content: bytes, complaint: str
) -> None:
    monkeypatch.setattr("services.node.cvmfs.finder.SIDECAR_LIMIT", 1000)
    url = repository.publish("one")
    (repository.root / sidecar_path(digest_of("one"))).write_bytes(content)
    with pytest.raises(RepositoryError, match=complaint) as caught:
        await _wait(core, url, seconds=60)
    assert url in str(caught.value)


async def test_the_sidecar_of_another_layer_is_refused(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    (repository.root / sidecar_path(digest_of("one"))).write_bytes(repository.sidecar("two").encode())
    with pytest.raises(RepositoryError, match=f"sidecar of layer {url} is that of layer {digest_of('two')}"):
        await core.find(url)


async def test_a_sidecar_that_contradicts_itself_is_refused(core: Core, repository: Repository) -> None:
    url = repository.publish("one", {"a": "one"})
    sidecar = repository.sidecar("one", whiteouts=[b"x", b"x/y"])
    (repository.root / sidecar_path(digest_of("one"))).write_bytes(sidecar.encode())
    with pytest.raises(RepositoryError, match="deletes a path and something at or below it: x/y"):
        await core.find(url)


@pytest.mark.parametrize("target", ["/etc", "../../etc", "../test.example.org-evil", "../other.example.org"])
async def test_a_link_that_leads_outside_its_repository_is_refused(
    core: Core, repository: Repository, cvmfs_root: Path, target: str
) -> None:
    for name in ("test.example.org-evil", "other.example.org"):
        (cvmfs_root / name).mkdir()
    (cvmfs_root.parent / "etc").mkdir()
    url = repository.publish("one", {"a": "one"})
    link = repository.root / digest_of("one")
    link.unlink()
    link.symlink_to(target)
    with pytest.raises(RepositoryError, match=f"layer {url} leads outside its repository"):
        await core.find(url)


async def test_a_link_within_the_layers_home_that_leads_outside_is_refused(core: Core, repository: Repository) -> None:
    url = repository.publish("one")
    repository.tree("one").rmdir()
    repository.tree("one").symlink_to("/etc")
    with pytest.raises(RepositoryError, match="leads outside its repository, to /etc"):
        await core.find(url)


async def test_the_root_of_a_repository_is_no_layer(core: Core, repository: Repository) -> None:
    url = repository.publish("one")
    link = repository.root / digest_of("one")
    link.unlink()
    link.symlink_to(".")
    with pytest.raises(RepositoryError, match="leads outside its repository"):
        await core.find(url)


async def test_a_loop_of_links_is_an_error_and_no_missing_layer(core: Core, repository: Repository) -> None:
    url = repository.publish("one")
    link = repository.root / digest_of("one")
    link.unlink()
    link.symlink_to(digest_of("one"))
    with pytest.raises(RepositoryError, match=r"cannot read repository test\.example\.org .*symbolic links"):
        await _wait(core, url, seconds=60)


# Waiting


async def test_waiting_ends_with_the_time_and_says_what_is_missing(core: Core, repository: Repository) -> None:
    present, missing, third = repository.publish("one"), repository.url("two"), repository.url("three")
    start = time.monotonic()
    with pytest.raises(LayerNotPublishedError) as caught:
        await _wait(core, present, missing, third, seconds=0.3)
    assert time.monotonic() - start > 0.15
    assert str(caught.value) == (
        f"2 of 3 layers did not show within 0.3 s, the first one is {missing}: ask the publisher about it "
        f"(GET /v1/layers/{missing.digest}), or try again when the CVMFS client has seen the new revision"
    )


async def test_no_wait_is_one_look(core: Core, repository: Repository) -> None:
    with pytest.raises(LayerNotPublishedError):
        await _wait(core, repository.url("one"), seconds=0)
    await _wait(core, repository.publish("one"), seconds=0)


async def test_a_layer_that_shows_meanwhile_ends_the_wait(core: Core, repository: Repository) -> None:
    urls = [repository.publish("one"), repository.url("two")]
    waiting = asyncio.create_task(core.finder.wait(urls, holder="test", timeout=60))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    repository.publish("two")
    assert set(await waiting) == set(urls)


def _talk(directory: Path, script: str) -> str:
    program = directory / "cvmfs_talk"
    program.write_text(f'#!/bin/sh\necho "$@" >> {directory}/talked\n{script}\n')
    program.chmod(0o755)
    return str(program)


async def test_the_client_is_asked_for_the_new_revision(
    home: Path, core: Core, repository: Repository, tmp_path: Path
) -> None:
    published = tmp_path / "published"
    url = repository.publish("one", {"a": "one"})
    (repository.root / digest_of("one")).rename(published)
    talk = _talk(tmp_path, f"exec mv {published} {repository.root / digest_of('one')}")
    asking = Core(home=home, io=core.io, repositories=core.repositories, talk_command=talk)
    await _wait(asking, url, seconds=60)
    assert (tmp_path / "talked").read_text() == "-i test.example.org remount sync\n"


@pytest.mark.parametrize("script", ["exit 1", "exec sleep 60"])
async def test_a_control_program_that_fails_or_hangs_prolongs_no_wait(
    home: Path, core: Core, repository: Repository, tmp_path: Path, script: str
) -> None:
    asking = Core(
        home=home,
        io=core.io,
        repositories=core.repositories,
        talk_command=_talk(tmp_path, script),
    )
    start = time.monotonic()
    with pytest.raises(LayerNotPublishedError):
        await _wait(asking, repository.url("one"), seconds=1.5)
    assert time.monotonic() - start < 30
    assert (tmp_path / "talked").read_text().count("\n") == 1


async def test_a_client_that_cannot_be_asked_is_warned_of_once(
    home: Path, core: Core, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "_REFRESH_INTERVAL", 0.01)
    asking = Core(home=home, io=core.io, repositories=core.repositories, talk_command=_talk(tmp_path, "exit 1"))
    talked = tmp_path / "talked"
    talked.touch()

    def runs() -> int:
        return talked.read_text().count("\n")

    async def failures(times: int) -> list[EventDict]:
        """Wait for a layer that does not come until the program has been run so often; return what was logged of it."""
        enough = runs() + times + 1

        async def begun() -> bool:
            return runs() >= enough

        with structlog.testing.capture_logs() as logs:
            waiting = asyncio.create_task(_wait(asking, repository.url("one"), seconds=3600))
            # The one before has ended when one begins.
            await wait_until(begun, what="the program is run")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        return [log for log in logs if log["event"] == "refresh_failed"]

    found = await failures(3)
    assert len(found) >= 3
    assert [log["log_level"] for log in found] == ["warning", *["info"] * (len(found) - 1)]
    assert found[0]["repository"] == "test.example.org"
    # The next one that is to be had is worth a warning again.
    _talk(tmp_path, "exit 0")
    assert await failures(1) == []
    _talk(tmp_path, "exit 1")
    assert (await failures(1))[0]["log_level"] == "warning"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
async def test_what_is_in_a_sidecars_place_is_refused_and_not_waited_for(
    core: Core, repository: Repository, make: Callable[[Path], None]
) -> None:
    url = repository.publish("one")
    place = repository.root / sidecar_path(digest_of("one"))
    place.unlink()
    make(place)
    with pytest.raises(RepositoryError, match=f"the sidecar of layer {url} is no file"):
        await core.find(url)


async def test_a_damaged_layer_hides_no_other_one(core: Core, repository: Repository) -> None:
    urls = [repository.publish(name) for name in ("one", "two", "three")]
    (repository.root / sidecar_path(digest_of("two"))).write_bytes(b"")
    findings = await core.finder.find([*urls, repository.url("four")], holder="test")
    assert set(findings.found) == {urls[0], urls[2]}
    assert list(findings.damaged) == [urls[1]]
    assert findings.errors == {}
    with pytest.raises(RepositoryError, match="not a layer sidecar"):
        await _wait(core, *urls, seconds=10)
