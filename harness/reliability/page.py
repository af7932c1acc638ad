"""docs/reliability.md, made of a run's figures. What a figure means is said by whoever has recorded it."""

import re
from collections.abc import Sequence
from statistics import median
from typing import Final

from harness.plot import Curve as Line
from harness.plot import plot
from harness.reliability.figures import Chapter, Curve, Trial
from harness.reliability.run import Run

__all__ = ["page", "plots"]

_INTRODUCTION: Final = """\
# Reliability

This suite claims to lose nothing. This page shows what was done to it, how often, and what came out. `make soak` runs
all of it again in at most 20 minutes and writes this page anew; a trial that loses anything, or that takes longer
than its bound, fails the run. `make test` has a short form of each trial.

{machine}

Everything here is real: the services, dockerd, containerd, overlayfs, SeaweedFS as the object store, PostgreSQL, a
registry. What cannot be installed on a test machine is not: CernVM-FS itself (a stand-in of `cvmfs_server`, or this
suite's own reader of the format, takes its part) and MinIO. Servers, services and tests share one machine, so that
times are longer than a site's.

**How to read the tables.** *Shown* is how long it took until a fault was shown as an error, *recovered* how long from
its end, or from the restart after a kill, until everything went on by itself: the median and the longest, in seconds,
and the bound that a trial must keep where it has one.
"""
_HEADINGS: Final = {
    Chapter.KILLS: ("Kills", "Processes get SIGKILL, and are started again as their supervisor would."),
    Chapter.POWER: (
        "Power cuts",
        "What was not brought to the disk is gone, and services start on what is left.",
    ),
    Chapter.NETWORK: ("Faults of the network", "A proxy stands between two that talk, and does what networks do."),
    Chapter.LOAD: ("Load", "More at once than a site expects, and disks that are full."),
    Chapter.HOSTILE: ("Hostile input", "What comes from outside is meant to do harm, or is damaged."),
}
_UNFIT: Final = re.compile(r"[^a-z0-9]+")


def page(run: Run) -> str:
    """Write the page.

    Parameters
    ----------
    run
        What it shows.
    """
    parts = [_INTRODUCTION.format(machine=_machine(run))]
    for chapter, (heading, what) in _HEADINGS.items():
        trials = [trial for trial in run.figures.trials if trial.chapter is chapter]
        curves = [curve for curve in run.figures.curves if curve.chapter is chapter]
        if not trials and not curves:
            continue
        parts.append(f"## {heading}\n\n{what}\n")
        if trials:
            parts.append(_table(trials))
        parts += [f"![{curve.title}]({_file(curve)})\n" for curve in curves]
    return "\n".join(parts)


def plots(run: Run) -> dict[str, str]:
    """Draw what the page shows beside its tables.

    Parameters
    ----------
    run
        What the page shows.

    Returns
    -------
    dict
        SVG documents by their files' names.
    """
    return {_file(curve): _drawn(curve) for curve in run.figures.curves}


def _machine(run: Run) -> str:
    machine = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"The figures are of {run.date}, commit `{run.revision}`, seed {run.seed}, {run.seconds / 60:.0f} minutes on "
        f"{machine.cores} cores with {machine.memory / 1e9:.0f} GB of memory, Linux {machine.kernel}; {versions}."
    )


def _table(trials: Sequence[Trial]) -> str:
    lines = ["| what | was tried | times | came out | shown | recovered |", "|---|---|---:|---|---:|---:|"]
    lines += [
        f"| {_cell(trial.subject)} | {_cell(trial.tried)} | {trial.times:,} | {_cell(_outcome(trial))} "
        f"| {_seconds(trial.shown, trial.shown_bound)} | {_seconds(trial.recovery, trial.recovery_bound)} |"
        for trial in trials
    ]
    return "\n".join(lines) + "\n"


def _outcome(trial: Trial) -> str:
    losses = [f"**{count:,} {what}**" for what, count in trial.losses.items()]
    seen = [f"{what}: {_value(value)}" for what, value in trial.seen.items()]
    return "; ".join([", ".join(losses), *seen] if losses else seen)


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004 # three digits


def _seconds(times: Sequence[float], bound: float | None) -> str:
    if not times:
        return ""
    values = f"{_value(float(median(times)))}, {_value(float(max(times)))}"
    return values if bound is None else f"{values} ({bound:g})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _file(curve: Curve) -> str:
    return f"reliability-{_UNFIT.sub('-', curve.title.lower()).strip('-')}.svg"


def _drawn(curve: Curve) -> str:
    lines = [Line(label, points) for label, points in curve.lines.items()]
    return plot(curve.title, lines, below=curve.across, beside=curve.up)
