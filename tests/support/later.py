"""Releases of the suite that do not exist yet: this one's code, with further versions of the publisher's journal."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import services
from harness.commands import Completed, run
from services.publisher.journal.version import VERSION
from tests.support.publisher import PublisherProcess

__all__ = ["LaterRelease"]

_MODULE = '''\
"""A version of a test's."""

from alembic import op

revision = "{number}"
down_revision = "{former}"
oldest = {oldest}


def upgrade() -> None:
    """Make it."""
{body}
'''


class LaterRelease:
    """The code of one, in a directory.

    Parameters
    ----------
    directory
        Where it is put.
    versions
        What comes after this release's version: the oldest version whose publishers may go on, and what makes it.
    """

    def __init__(self, directory: Path, *versions: tuple[int, Sequence[str]]) -> None:
        (source,) = services.__path__
        shutil.copytree(source, directory / "services")  # with what the interpreter has compiled
        journal = directory / "services/publisher/journal"
        for number, (oldest, body) in enumerate(versions, VERSION + 1):
            (journal / f"migrations/versions/version_{number}.py").write_text(
                _MODULE.format(
                    number=number, former=number - 1, oldest=oldest, body="\n".join(f"    {line}" for line in body)
                )
            )
        said = (journal / "version.py").read_text()
        later = said.replace(f"Final = {VERSION}\n", f"Final = {VERSION + len(versions)}\n")
        assert later != said
        (journal / "version.py").write_text(later)
        self._environment = {"PYTHONPATH": str(directory)}

    async def migrate(self, environment: Mapping[str, str]) -> Completed:
        """Run its `services.publisher.migrate`, whatever comes of it."""
        program = "services.publisher.migrate"
        # -P: not the code of the directory that tests run in.
        return await run(
            sys.executable, "-P", "-m", program, env={**environment, **self._environment}, accept=(0, 1, 3)
        )

    def publisher(self, process: PublisherProcess) -> PublisherProcess:
        """Let a publisher that is not started be one of this release; return it."""
        daemon = process.daemon
        daemon.forks = None  # they have loaded the code of the directory that tests run in
        daemon.argv = [sys.executable, "-P", "-m", "services.publisher"]
        daemon.env |= self._environment
        return process
