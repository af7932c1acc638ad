import json
from pathlib import Path

import pytest

from harness.bench.measure import Row, Target, compare
from harness.bench.report import closing_note, table, write_json


def _row(suite: list[float], limit: float = 1.25) -> Row:
    return Row(
        name="load",
        samples={"overlay2": [1.0, 3.0, 2.0], "suite": suite},
        targets=(Target(subject="suite", over="overlay2", limit=limit),),
    )


def test_a_ratio_is_one_of_medians() -> None:
    assert _row([1.0, 100.0, 2.5]).reached(_row([]).targets[0]) == 1.25


def test_a_reached_target_is_said_to_be() -> None:
    rows = [_row([2.4, 2.5, 2.6])]
    assert "1.25 of overlay2, target 1.25: reached" in table(rows)
    assert closing_note(rows) == "Every target is reached."


def test_a_missed_target_is_named_with_its_cost() -> None:
    rows = [_row([3.0, 3.0, 3.0])]
    assert "1.50 of overlay2, target 1.25: MISSED" in table(rows)
    assert closing_note(rows) == ("Targets missed:\n- load, suite: 20% over its target, which costs 500 ms each time")


def test_a_target_may_be_a_figure() -> None:
    row = Row(name="peak", unit="MB", samples={"driver": [160.0]}, targets=(Target(subject="driver", limit=150),))
    assert "160 MB, target 150 MB: MISSED" in table([row])
    assert closing_note([row]) == "Targets missed:\n- peak, driver: 7% over its target"


def test_the_document_holds_every_figure(tmp_path: Path) -> None:
    write_json([_row([3.0, 3.0, 3.0])], docker="26.1.5", destination=tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["machine"]["docker"] == "26.1.5"
    (row,) = document["rows"]
    assert row["subjects"]["overlay2"] == {"median": 2.0, "samples": [1.0, 3.0, 2.0]}
    assert row["ratios"] == {"suite": 1.5}
    assert row["targets"] == [{"subject": "suite", "over": "overlay2", "limit": 1.25, "value": 1.5, "reached": False}]


@pytest.mark.parametrize("runs", [1, 4])
async def test_subjects_take_turns_and_the_first_turn_does_not_count(runs: int) -> None:
    order: list[str] = []

    def subject(name: str) -> object:
        async def once() -> float:
            order.append(name)
            return float(len(order))

        return once

    row = await compare("row", {"a": subject("a"), "b": subject("b")}, runs=runs)  # type: ignore[dict-item]
    assert "".join(order) == "abba" * (runs // 2) + ("abba" if runs % 2 else "ab")
    assert len(row.samples["a"]) == len(row.samples["b"]) == runs
    assert 1.0 not in row.samples["a"]
