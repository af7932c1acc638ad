"""`converter plan`, and `converter schema`."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.converter.commands.plan import plan
from services.converter.commands.plan_table import plan_document, show_plan
from services.converter.commands.planned import Plan, make_plan
from services.converter.commands.schema import schema
from services.converter.errors import SourceUnreachableError, WishListError
from services.converter.model import Wish
from services.converter.wishlist.grammar import json_schema
from services.registry.errors import RegistryUnavailableError
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


class _Tags:
    """A registry in memory."""

    async def tags(self, wish: Wish) -> Sequence[str]:
        if wish.repository == "n/gone":
            raise RegistryUnavailableError("q.io does not answer")
        return ["1", "3", "2", "x4", "latest"]

    async def created(self, wish: Wish, tag: str) -> datetime | None:
        assert wish.repository == "n/a"
        return {"latest": datetime.now(UTC), "1": datetime.now(UTC) - timedelta(days=2)}.get(tag)


async def _plan(*, asked: bool) -> Plan:
    wish_list = wishes_of(_LIST)
    return await make_plan(wish_list.wishes, wish_list.policies, _Tags() if asked else None)


async def test_what_wishes_come_to() -> None:
    document = plan_document(await _plan(asked=True))
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
    show_plan(made)
    shown = capsys.readouterr().out
    assert "the registry is not asked for its tags" in shown
    assert "r.io/thin/n/a:1" in shown


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
