"""`converter plan`, and `converter schema`."""

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.publisher_api import PublisherApi
from services.common.repository_name import RepositoryName
from services.converter.commands.outlook import look_ahead
from services.converter.commands.plan import plan
from services.converter.commands.plan_table import plan_document, show_plan
from services.converter.commands.planned import Plan, make_plan
from services.converter.commands.schema import schema
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.model import Wish
from services.converter.wishlist.grammar import json_schema
from services.registry.errors import ImageMissingError, RegistryUnavailableError
from tests.support.image_publisher import ImagePublisher
from tests.support.wish_lists import DIGEST, wishes_of

_LIST = f"""\
version: 2
defaults: {{repositories: a.example.org, thin: 'r.io/thin/$(repository):$(tag)'}}
images:
- q.io/n/a:1
- {{image: q.io/n/a, tags: '*', exclude: 'x*', newest: 2, priority: 1, thin: []}}
- {{image: q.io/n/a, max_age: 1d, newest: 1, newest_by: created}}
- {{image: 'q.io/n/gone:*'}}
- {{image: 'q.io/n/b@{DIGEST}', thin: []}}
"""


def _digest(text: str) -> Digest:
    return Digest(sha256(text.encode()).hexdigest())


class _Tags:
    """A registry in memory."""

    async def tags(self, wish: Wish) -> Sequence[str]:
        if wish.repository == "n/gone":
            raise RegistryUnavailableError("q.io does not answer")
        return ["1", "3", "2", "x4", "latest"]

    async def digest(self, name: ImageName) -> Digest:
        match name.version:
            case "latest":
                raise ImageMissingError("q.io has no such image")
            case "x4":
                raise RegistryUnavailableError("q.io does not answer")
            case version:
                return _digest(version)

    async def created(self, wish: Wish, tag: str) -> datetime | None:
        assert wish.repository == "n/a"
        return {"latest": datetime.now(UTC), "1": datetime.now(UTC) - timedelta(days=2)}.get(tag)


async def _plan(*, asked: bool) -> Plan:
    wish_list = wishes_of(_LIST)
    return await make_plan(wish_list.wishes, wish_list.policies, _Tags() if asked else None)


async def test_what_wishes_come_to() -> None:
    document = plan_document(await _plan(asked=True), {})
    rows = {row["name"]: row for row in document["images"]}
    assert {name: row["origin"] for name, row in rows.items()} == {
        "q.io/n/a:3": "list.yaml:5:3",
        "q.io/n/a:2": "list.yaml:5:3",
        "q.io/n/a:1": "list.yaml:4:3",
        "q.io/n/a:latest": "list.yaml:6:3",
        f"q.io/n/b@{DIGEST}": "list.yaml:8:3",
    }
    assert rows["q.io/n/a:1"]["thin"] == ["r.io/thin/n/a:1"]
    assert rows["q.io/n/a:3"]["why"] == "tags *, without x*, the newest 2 by version"
    assert rows[f"q.io/n/b@{DIGEST}"]["digest"] == DIGEST
    (still_open,) = document["open"]
    assert still_open["reason"] == "the registry does not tell: q.io does not answer"


async def test_without_registries_what_needs_them_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    made = await _plan(asked=False)
    assert [wanted.name for wanted in made.wanted] == ["q.io/n/a:1", f"q.io/n/b@{DIGEST}"]
    assert len(made.open) == 3
    show_plan(made, {})
    shown = capsys.readouterr().out
    assert "the registry is not asked for its tags" in shown
    assert "r.io/thin/n/a:1" in shown


def _image(name: str, published: str | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON document
    time = "2026-01-02T03:04:05+00:00"
    document = {"name": name, "reference": name, "state": "published", "asked_at": time, "updated_at": time}
    digests = {"digest": published, "published_digest": published}
    return document | digests | more


async def _outlooks(wishes: str, images: dict[str, dict[str, Any]], *, broken: int | None = None) -> dict[str, str]:
    """Return what would be done about each image, by its name."""
    wish_list = wishes_of(f"version: 2\ndefaults: {{repositories: [a.example.org, b.c]}}\nimages: {wishes}\n")
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(ImagePublisher.run())
        publisher.images, publisher.broken = images, broken
        api = await stack.enter_async_context(PublisherApi(url=publisher.url))
        made = await make_plan(wish_list.wishes, (), _Tags())
        outlooks = await look_ahead(made, _Tags(), {RepositoryName("a.example.org"): api.images}, whole=True)
        assert "POST" not in " ".join(line for line, _ in publisher.requests)
        show_plan(made, outlooks)
        document = plan_document(made, outlooks)
    unwished = [each["name"] for each in document["unwished"]]
    assert {outlook.action for (_, name), outlook in outlooks.items() if name in unwished} <= {"not wished"}
    elsewhere = [outlook.reason for (repository, _), outlook in outlooks.items() if repository == "b.c"]
    assert set(elsewhere) <= {"no publisher of the repository is given"} | {
        outlook.reason for outlook in outlooks.values() if outlook.action in ("gone", "cannot tell")
    }
    return {
        str(name): f"{outlook.action}: {outlook.reason}"
        for (repository, name), outlook in outlooks.items()
        if repository == "a.example.org"
    }


async def test_what_would_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    new, same, moved, other = (_digest(text).oci for text in ("1", "2", "3", "other"))
    images = {
        "q.io/n/a:2": _image("q.io/n/a:2", same),
        "q.io/n/a:3": _image("q.io/n/a:3", other),
        "q.io/n/a:4": _image("q.io/n/a:4", other, digest=_digest("4").oci, state="fetching"),
        "q.io/n/a:5": _image("q.io/n/a:5", None, digest=_digest("5").oci, state="failed", reason="too large"),
        "q.io/n/a:old": _image("q.io/n/a:old", other),
        "q.io/n/a:never": _image("q.io/n/a:never", None, state="failed"),
    }
    wishes = ", ".join(f"'q.io/n/a:{tag}'" for tag in ("1", "2", "3", "4", "5", "latest", "x4"))
    found = await _outlooks(f"[{wishes}, 'q.io/n/b@{DIGEST}']", images)
    assert found == {
        "q.io/n/a:1": f"publish: {new} is not published",
        "q.io/n/a:2": f"nothing: {same} is published",
        "q.io/n/a:3": f"replace: {moved} replaces {other}",
        "q.io/n/a:4": "wait: the publisher is at it: fetching",
        "q.io/n/a:5": "wait: the publisher failed, it is not tried again: too large",
        "q.io/n/a:latest": "gone: q.io has no such image; what is published stays as its retention says",
        "q.io/n/a:x4": "cannot tell: q.io does not answer",
        f"q.io/n/b@{DIGEST}": f"publish: {DIGEST} is not published",
        "q.io/n/a:old": "not wished: no list wishes it; it stays as the retention of the list that last did says",
    }
    assert f"replace: {moved}" in capsys.readouterr().out


async def test_an_image_with_other_outputs_is_made_anew() -> None:
    same = _digest("2").oci
    flat = {"flat": {"others_read": False}}
    images = {"q.io/n/a:2": _image("q.io/n/a:2", same, outputs=flat)}
    found = await _outlooks("[{image: 'q.io/n/a:2', outputs: flat}]", images)
    assert found == {"q.io/n/a:2": f"nothing: {same} is published"}
    found = await _outlooks("[{image: 'q.io/n/a:2', outputs: [flat, podman]}]", images)
    assert found == {"q.io/n/a:2": f"replace: {same} is published with other outputs, and made anew of what is there"}


async def test_nothing_is_said_to_be_unwished_while_something_is_not_known() -> None:
    images = {"q.io/n/a:old": _image("q.io/n/a:old", _digest("old").oci)}
    assert "q.io/n/a:old" in await _outlooks("['q.io/n/a:1']", images)
    assert "q.io/n/a:old" not in await _outlooks("['q.io/n/a:1', 'q.io/n/gone:*']", images)


async def test_a_publisher_in_trouble_is_told() -> None:
    (text,) = (await _outlooks("['q.io/n/a:1']", {}, broken=500)).values()
    assert text.startswith("cannot tell: ")


def test_a_publisher_that_is_none(tmp_path: Path) -> None:
    for text in ("http://127.0.0.1", "a.b=", "a.b=ftp://x"):
        with pytest.raises(click.UsageError, match="REPOSITORY=http"):
            plan.main([str(tmp_path), "--publisher", text], standalone_mode=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.yaml").write_text(_LIST + "- fedora\n")
    plan.main([str(tmp_path / "list.yaml"), "--json"], standalone_mode=False)
    written = capsys.readouterr()
    assert len(json.loads(written.out)["images"]) == 2
    assert "has 1 errors" in written.err
    (tmp_path / "list.yaml").write_text("x: y")
    with pytest.raises(WishListError, match="nothing of"):
        plan.main([str(tmp_path)], standalone_mode=False)
    with pytest.raises(SourceUnreachableError):
        plan.main([str(tmp_path / "none")], standalone_mode=False)


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    schema.main([], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == json_schema()
