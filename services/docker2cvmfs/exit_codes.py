"""Exit statuses, and errors as their users see them."""

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Final

import click

from services.common.errors import InvalidValueError, SuiteError
from services.common.object_store import ObjectStoreError
from services.docker2cvmfs.errors import EngineError, OutputError, PublisherError
from services.docker2cvmfs.registry.errors import RegistryError

__all__ = ["EXIT_CODES", "report"]

_USAGE: Final = 2

EXIT_CODES: Final = """\
\b
Exit status:
  0  done
  1  it failed for another reason than those below
  2  an argument or a setting is wrong
  3  the registry failed or refused, or the image cannot be converted
  4  the object store failed or refused
  5  the publisher failed, refused a layer, or was not done in time
  6  the Docker engine did not take the image, or a file could not be written
  130, 143  interrupted by Ctrl-C or SIGTERM
"""

_CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = (
    (InvalidValueError, _USAGE),
    (RegistryError, 3),
    (ObjectStoreError, 4),
    (PublisherError, 5),
    (EngineError, 6),
    (OutputError, 6),
)


def report(command: Callable[[], object]) -> int:
    """Run a command, write what went wrong to the standard error output, and return the exit status."""
    try:
        command()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        sys.stderr.write("terminated\n")
        return 128 + signal.SIGTERM
    except SuiteError as error:
        sys.stderr.write(f"docker2cvmfs: {error}\n")
        return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
    return 0
