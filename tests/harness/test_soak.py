import subprocess
import sys
from pathlib import Path

import pytest

from harness.reliability.figures import Chapter, Curve, Figures, Trial
from tests.support.soak import Soak

_ROOT = Path(__file__).parents[2]
_TRIAL = Trial(chapter=Chapter.KILLS, subject="publisher", tried="kill -9", times=3, losses={"layers lost": 0})
_CURVE = Curve(chapter=Chapter.LOAD, title="Memory", across="MB", up="MB", lines={"driver": ((1, 1), (2, 1))})


@pytest.mark.parametrize(("full", "picked"), [(False, 1), (True, 100)])
def test_a_test_is_short_or_long(full: bool, picked: int) -> None:  # noqa: FBT001 # a case
    assert Soak(full=full, seed=0).pick(1, 100) == picked


def test_the_same_seed_draws_the_same() -> None:
    one, other, third = (Soak(full=True, seed=seed).random.random() for seed in (1, 1, 2))
    assert one == other != third


def test_what_is_recorded_is_kept() -> None:
    soak = Soak(full=True, seed=0)
    soak.record(_TRIAL)
    soak.record(_CURVE)
    assert soak.figures == Figures(trials=(_TRIAL,), curves=(_CURVE,))


def test_a_loss_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"publisher, kill -9: \{'layers lost': 1\}"):
        Soak(full=True, seed=0).record(_TRIAL.model_copy(update={"losses": {"layers lost": 1, "others": 0}}))


@pytest.mark.parametrize("what", ["shown", "recovery"])
def test_what_takes_longer_than_its_bound_fails_the_test(what: str) -> None:
    late = _TRIAL.model_copy(update={what: (1.0, 9.5), f"{what}_bound": 9})
    with pytest.raises(AssertionError, match=r"after 9.5 s, not 9"):
        Soak(full=True, seed=0).record(late)


_TESTS = """
from tests.harness.test_soak import _CURVE, _TRIAL

def test_passes(soak):
    assert soak.full
    soak.record(_TRIAL)

def test_fails(soak):
    soak.record(_CURVE)
    assert False
"""


def test_figures_of_a_test_that_passes_are_written(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.soak", f"--rootdir={tmp_path}", "test_some.py"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(_ROOT)}
    ended = subprocess.run(
        [*command, "--soak", "--figures", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in ended.stdout
    [file] = tmp_path.glob("*.json")
    assert Figures.model_validate_json(file.read_bytes()) == Figures(trials=(_TRIAL,))
