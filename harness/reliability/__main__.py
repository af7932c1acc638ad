"""`python -m harness.reliability DIRECTORY`: make docs/reliability.md of what tests wrote to a directory.

`python -m harness.reliability` alone makes the page again of docs/reliability.json.
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from harness.reliability.figures import gathered
from harness.reliability.page import page, plots
from harness.reliability.run import Run, revision, this_machine
from services.common.durable import replace_file

__all__: list[str] = []

_DOCS: Final = Path("docs")
_RUN: Final = _DOCS / "reliability.json"


def main() -> None:
    """Write the page, and the run that it shows."""
    parser = argparse.ArgumentParser(prog="python -m harness.reliability", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", help="where the tests of a run wrote what they found out")
    parser.add_argument("--seed", type=int, default=0, help="what the run's random moments were drawn from")
    parser.add_argument("--begun", type=int, default=0, help="when the run began, in seconds since 1970")
    chosen = parser.parse_args()
    if chosen.directory is not None:
        run = Run(
            revision=revision(),
            date=datetime.now(UTC).date().isoformat(),
            seconds=round(time.time()) - chosen.begun,
            seed=chosen.seed,
            machine=this_machine(),
            figures=gathered(sorted(chosen.directory.glob("*.json"))),
        )
        replace_file(_RUN, (run.model_dump_json(indent=1, exclude_defaults=True) + "\n").encode())
    run = Run.model_validate_json(_RUN.read_bytes())
    drawn = plots(run)
    for old in set(_DOCS.glob("reliability-*.svg")) - {_DOCS / name for name in drawn}:
        old.unlink()
    for name, content in drawn.items():
        replace_file(_DOCS / name, content.encode())
    replace_file(_DOCS / "reliability.md", page(run).encode())
    print(f"reliability: {len(run.figures.trials)} trials, {len(drawn)} plots: docs/reliability.md")


if __name__ == "__main__":
    main()
