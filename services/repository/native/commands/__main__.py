"""`thin-repository`, or `python -m services.repository.native.commands`."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

import click

from services.common.command_line import report
from services.common.logs import LogFormat, LogLevel, configure_logging
from services.repository.native.commands.adopt import adopt
from services.repository.native.commands.check import check
from services.repository.native.commands.create import create
from services.repository.native.commands.frame import CODES, EXIT_CODES
from services.repository.native.commands.gc import gc
from services.repository.native.commands.info import info
from services.repository.native.commands.list_ import list_
from services.repository.native.commands.remove import remove
from services.repository.native.commands.republish import republish
from services.repository.native.commands.resign import resign, sign_whitelist_file
from services.repository.native.commands.tag import tag

__all__ = ["cli", "main", "run"]

_PROGRAM: Final = "thin-repository"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
def cli() -> None:
    """Look after CVMFS repositories that are written without cvmfs_server.

    Every command can be killed and repeated. Those that change a repository wait for nobody: while another process
    writes to it, they end with status 6.
    """
    configure_logging(level=LogLevel.WARNING, output=LogFormat.CONSOLE)


for command in (create, adopt, info, list_, check, tag, remove, republish, gc, resign, sign_whitelist_file):
    cli.add_command(command)


def _terminate(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that temporary files are removed on the way


def run(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return the exit status."""
    return report(lambda: cli.main(arguments, prog_name=_PROGRAM, standalone_mode=False), program=_PROGRAM, codes=CODES)


def main() -> int:
    """Run as a program of its own."""
    os.umask(0o022)  # as the publisher does: web servers read what it writes, and keys have modes of their own
    signal.signal(signal.SIGTERM, _terminate)
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
