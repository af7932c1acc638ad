"""A PostgreSQL server of Debian's, for tests and benchmarks."""

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier
from pydantic import SecretStr

from harness.commands import run
from harness.ports import free_ports
from harness.processes import Daemon, wait_until

__all__ = ["PostgresqlServer"]

_PROGRAMS: Final = Path("/usr/lib/postgresql")
_FORGOTTEN: Final = Path("/var/tmp")  # noqa: S108 - mkdtemp makes a directory of its own there
_USER: Final = 65534
"""Whom it runs as: it refuses to be root."""


class PostgresqlServer:
    """The server, which forgets everything when its machine loses power, unless it is to last.

    Parameters
    ----------
    log
        File that gets its output.
    durable
        Directory for its files, into which everybody may look, where commits are to be on the disk; else nothing waits
        for a disk.
    """

    def __init__(self, log: Path, *, durable: Path | None = None) -> None:
        self._log = log
        (self.port,) = free_ports(1)
        # Below no directory of root's alone.
        self._directory = Path(tempfile.mkdtemp(prefix="postgresql-", dir=durable or _FORGOTTEN))
        self._syncing = {} if durable else {"fsync": "off", "full_page_writes": "off"}
        self._daemon: Daemon | None = None
        self.password: Final = SecretStr("the password of a server on the loopback interface")
        """Password of the user `publisher`, who may do everything."""
        self.password_file: Final = self._directory / "password"
        """The same, from the first start on."""

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://publisher@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Start the server and wait until it takes connections; at the first time, make its files.

        Raises
        ------
        DaemonError
            It did not get ready.
        """
        programs = _programs()
        data = self._directory / "data"
        user = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups")
        if not data.exists():
            self.password_file.write_text(self.password.get_secret_value())
            for path in (self._directory, self.password_file):
                os.chown(path, _USER, _USER)
            login = ("--auth=scram-sha-256", "--username=publisher", f"--pwfile={self.password_file}")
            options = ("--no-sync", "--encoding=UTF8", "--no-locale", *login)
            await run(*user, programs / "initdb", f"--pgdata={data}", *options)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._syncing,
        }
        chosen = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._daemon = Daemon("postgres", [*user, str(programs / "postgres"), "-D", str(data), *chosen], log=self._log)

        async def answers() -> bool:
            try:
                await self.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        await self._daemon.start(answers)

    async def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Run a statement that is no part of a transaction, and returns nothing."""
        connection = await psycopg.AsyncConnection.connect(
            self.url(database), password=self.password.get_secret_value(), autocommit=True
        )
        async with connection:
            await connection.execute(statement.encode())

    async def create(self, database: str) -> str:
        """Make a database; return its URL."""
        await self.execute(SQL("CREATE DATABASE {}").format(Identifier(database)).as_string())
        return self.url(database)

    async def dump(self, database: str, to: Path) -> None:
        """Back a database up, as Debian's `pg_dump` does."""
        await self._client("pg_dump", f"--dbname={self.url(database)}", "--format=custom", f"--file={to}")

    async def restore(self, dump: Path, *, database: str) -> str:
        """Make a database of what `dump` has written; return its URL."""
        url = await self.create(database)
        await self._client("pg_restore", f"--dbname={url}", "--exit-on-error", dump)
        return url

    async def _client(self, program: str, *arguments: str | Path) -> None:
        await run(_programs() / program, *arguments, env={"PGPASSWORD": self.password.get_secret_value()})

    async def restart(self) -> None:
        """End it, whoever is connected, and start it again."""
        await self._end()
        await self.start()

    async def crash(self) -> None:
        """Kill its first process, and wait until the others have ended of that, so that it can be started again."""
        daemon = self._daemon
        if daemon is None or not daemon.running:
            return
        others = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
        await daemon.kill()

        async def ended() -> bool:
            return not any(Path("/proc", process).exists() for process in others)

        await wait_until(ended, what="the processes of the database server end")

    async def kill(self) -> None:
        """End it, and remove its files."""
        await self._end()
        shutil.rmtree(self._directory)

    async def _end(self) -> None:
        daemon = self._daemon
        if daemon is None or not daemon.running:
            return
        # It ends its processes, which are in groups of their own, and writes nothing any more.
        os.kill(daemon.pid, signal.SIGQUIT)

        async def ended() -> bool:
            return not daemon.running

        await wait_until(ended, what="the database server ends")


def _programs() -> Path:
    """Return where the programs of the newest version are."""
    (programs,) = sorted(_PROGRAMS.glob("*/bin"))[-1:]
    return programs
