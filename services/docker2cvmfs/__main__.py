"""`docker2cvmfs`, or `python -m services.docker2cvmfs`."""

import sys

from services.docker2cvmfs.cli import cli
from services.docker2cvmfs.exit_codes import report

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name; return the exit status."""
    return report(lambda: cli.main(prog_name="docker2cvmfs", standalone_mode=False))


if __name__ == "__main__":
    sys.exit(main())
