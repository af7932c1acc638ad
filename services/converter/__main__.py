"""`converter`, or `python -m services.converter`."""

import sys

from services.common.command_line import report
from services.converter.cli import cli
from services.converter.exit_codes import CODES

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name; return the exit status."""
    program = "converter"
    return report(lambda: cli.main(prog_name=program, standalone_mode=False), program=program, codes=CODES)


if __name__ == "__main__":
    sys.exit(main())
