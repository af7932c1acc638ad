"""Bring the publisher's journal to this version, and end: `python -m services.publisher.migrate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from services.common.command_line import report, write_output
from services.common.database.versions import Tables
from services.common.errors import InvalidValueError, SuiteError
from services.common.lock_file import LOCK_FILE, locked
from services.common.logs import configure_logging
from services.publisher.errors import JournalError, PublisherError
from services.publisher.journal.moving import move_rows
from services.publisher.journal.postgresql import connection_parameters, shown_name
from services.publisher.journal.schema import Migration, refuse_newer
from services.publisher.journal.upgrade import read_postgresql, read_sqlite, upgrade_postgresql, upgrade_sqlite
from services.publisher.journal.version import VERSION
from services.publisher.settings import PublisherSettings

__all__ = ["main", "run"]

_PROGRAM: Final = "python -m services.publisher.migrate"
_EXIT_CODES: Final = """\
\b
Exit status:
  0  done, or nothing to be done
  1  it failed
  2  an argument or a setting is wrong
  3  --check: the journal has to be brought to this version
"""


class MigrationNeededError(PublisherError):
    """The journal has an older version than this publisher writes."""


_CODES: Final[tuple[tuple[type[SuiteError], int], ...]] = ((InvalidValueError, 2), (MigrationNeededError, 3))


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXIT_CODES)
@click.option("--check", is_flag=True, help="Only tell whether there is something to be done.")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Move the journal of this SQLite file into the PostgreSQL database, which is empty. Its publisher is stopped.",
)
def migrate(*, check: bool, source: Path | None) -> None:
    """Bring the publisher's journal to the version that this publisher writes.

    Publishers do that by themselves when they start. Run this before, where it should be done once for all of them. It
    reads the same settings as they do, and can be killed and repeated. In PostgreSQL, publishers go on meanwhile, and a
    second run waits for the first.
    """
    if check and source is not None:
        raise click.UsageError("--check and --from: give one")
    settings = PublisherSettings.load()
    configure_logging(level=settings.log_level, output=settings.log_format)
    if check:
        _check(settings)
    elif source is None:
        _say(_name(settings), _migrate(settings))
    elif settings.database is None:
        raise click.UsageError("--from: PUBLISHER_DATABASE does not say where to")
    else:
        _move(settings, settings.database, source)


def _name(settings: PublisherSettings) -> str:
    if settings.database is not None:
        return shown_name(settings.database)
    return f"the journal {settings.journal_file}"


def _read(settings: PublisherSettings) -> Tables:
    name = _name(settings)
    if settings.database is None:
        return read_sqlite(settings.journal_file, journal=name)
    return read_postgresql(connection_parameters(settings.database, settings.database_password), journal=name)


def _check(settings: PublisherSettings) -> None:
    found, name = _read(settings), _name(settings)
    refuse_newer(found, journal=name)
    if not found.usable(VERSION):
        has = f"has version {found.version}" if found.version else "does not exist yet"
        raise MigrationNeededError(f"{name} {has}, this publisher writes version {VERSION}")
    write_output(f"{name} has version {found.version}, nothing has to be done\n")


def _migrate(settings: PublisherSettings) -> Migration:
    name = _name(settings)
    if settings.database is not None:
        return upgrade_postgresql(connection_parameters(settings.database, settings.database_password), journal=name)
    found = _read(settings)
    refuse_newer(found, journal=name)
    if found.usable(VERSION):
        return Migration(found=found.version, now=found.version)
    # A publisher that runs has brought it to its own version, which is not this one.
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(settings.state / LOCK_FILE, otherwise=f"another process works with {name}"):
        return upgrade_sqlite(settings.journal_file, journal=name)


def _move(settings: PublisherSettings, database: str, source: Path) -> None:
    name, parameters = shown_name(database), connection_parameters(database, settings.database_password)
    with locked(source.parent / LOCK_FILE, otherwise=f"another process works with {source}"):
        for migration in (
            upgrade_sqlite(source, journal=f"the journal {source}"),
            upgrade_postgresql(parameters, journal=name),
        ):
            if migration.now != VERSION:
                raise JournalError(
                    f"{source} and {name} must have version {VERSION}, and one has {migration.now}: use that publisher"
                )
        tables = read_postgresql(parameters, journal=name)
        moved = move_rows(source, parameters, journal=name, oldest=tables.oldest)
    counted = ", ".join(f"{table} {rows}" for table, rows in moved.items() if rows)
    write_output(f"moved {source} into {name}: {sum(moved.values())} rows ({counted})\n")


def _say(name: str, migration: Migration) -> None:
    if migration.found == migration.now:
        write_output(f"{name} has version {migration.now} already\n")
    elif migration.found:
        write_output(f"{name} was brought from version {migration.found} to {migration.now}\n")
    else:
        write_output(f"{name} was made, with version {migration.now}\n")


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return report(
        lambda: migrate.main(arguments, prog_name=_PROGRAM, standalone_mode=False), program=_PROGRAM, codes=_CODES
    )


def main() -> int:
    """Run as a program of its own."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
