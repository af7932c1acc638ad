"""`thinctl`, or `python -m services.thinctl`."""

import sys

from services.common.command_line import report
from services.thinctl.cli import cli
from services.thinctl.exit_codes import CODES

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name; return the exit status."""
    return report(lambda: cli.main(prog_name="thinctl", standalone_mode=False), program="thinctl", codes=CODES)


if __name__ == "__main__":
    sys.exit(main())
