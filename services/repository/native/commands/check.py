"""`thin-repository check`."""

import sys
from typing import Any, Final

import click

from services.common.command_line import write_document, write_output
from services.repository.native.check.checker import Checker, Report
from services.repository.native.commands.frame import JSON
from services.repository.native.commands.reading import READABLE, find_readable

__all__ = ["check"]

_FOUND: Final = 3
"""Exit status where something is wrong."""


@click.command(
    epilog="""\
\b
Examples:
  thin-repository check thin.example.org --directory /srv/cvmfs/thin.example.org
  thin-repository check thin.example.org --url http://stratum1.example.org/cvmfs/thin.example.org --quick
"""
)
@READABLE
@click.option("--quick", is_flag=True, help="Only look whether the objects of files are there; do not read them.")
@JSON
def check(*, quick: bool, as_json: bool, **place: Any) -> None:  # noqa: ANN401
    """Verify signatures, tags, catalogs, counters and the hash of every object, on all cores.

    The newest revision and every one that has a tag are checked. Each defect is named with its path and what to do;
    the exit status is 3 where there is one. The private keys are not needed, nor is the repository stopped meanwhile:
    a revision that is published during the check is not looked at.
    """
    with find_readable(**place) as site:
        report = Checker(site.source, name=site.name, master_keys=[site.public_key], content=not quick).run()
    if as_json:
        write_document(_document(report))
    else:
        write_output("".join(f"{problem}\n" for problem in report.problems))
        write_output("" if report.note is None else f"note: {report.note}\n")
        write_output(_summary(report))
    if report.problems:
        sys.exit(_FOUND)


def _document(report: Report) -> dict[str, object]:
    return {
        "problems": [
            {"place": problem.place, "what": problem.what, "remedy": problem.remedy} for problem in report.problems
        ],
        "note": report.note,
        "revision": report.revision,
        "revisions": report.revisions,
        "catalogs": report.catalogs,
        "entries": report.entries,
        "objects": report.objects,
        "seconds": round(report.seconds, 3),
    }


def _summary(report: Report) -> str:
    counts = (
        (report.revisions, "revision", "revisions"),
        (report.catalogs, "catalog", "catalogs"),
        (report.entries, "entry", "entries"),
        (report.objects, "object", "objects"),
    )
    looked_at = ", ".join(_count(*count) for count in counts)
    verdict = _count(len(report.problems), "problem", "problems") if report.problems else "no problem"
    return f"{verdict}: {looked_at}, {report.seconds:.1f} s\n"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
