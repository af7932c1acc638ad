"""A clock that nobody can set: what the retention of images and the times of polls are counted by.

The time of day is set by people and by daemons, sometimes by years. A clock that jumps must remove no image and ask no
registry a thousand times. So durations are counted by the kernel's clock since the boot, which goes on in suspended
machines and for all processes alike; over a reboot the time of day counts, an hour at most.
"""

import time
from pathlib import Path
from typing import Final

from services.common.sqlite_file import SqliteFile

__all__ = ["MachineClock", "SteadyClock"]

_ACROSS_BOOTS: Final = 3600.0
"""Most seconds that are believed to have passed where only the time of day says so."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class MachineClock:
    """The machine's own clocks."""

    def boot(self) -> str:
        """Name the present boot."""
        return _BOOT_ID.read_text().strip()

    def since_boot(self) -> float:
        """Return the seconds since then."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        """Return the time of day, in seconds since the epoch."""
        return time.time()


class SteadyClock:
    """Seconds that the state has existed, as far as that can be told.

    Parameters
    ----------
    file
        Where it is kept.
    machine
        The clocks that it is made of.
    """

    def __init__(self, *, file: SqliteFile, machine: MachineClock) -> None:
        self._file = file
        self._machine = machine
        self._boot = ""
        self._offset = 0.0

    async def start(self) -> None:
        """Go on where the last process was; raises `SqliteFileError`."""
        self._boot = self._machine.boot()
        rows = await self._file.run("SELECT boot, since_boot, steady, wall FROM clock")
        since_boot = self._machine.since_boot()
        if rows:
            boot, then, steady, wall = rows[0]
            passed = since_boot - then if boot == self._boot else min(self._machine.now() - wall, _ACROSS_BOOTS)
            self._offset = steady + max(passed, 0.0) - since_boot
        else:
            self._offset = -since_boot
        await self.save()

    async def save(self) -> None:
        """Record how late it is; raises `SqliteFileError`."""
        await self._file.run(
            """
            INSERT INTO clock (id, boot, since_boot, steady, wall) VALUES (1, :boot, :since_boot, :steady, :wall)
            ON CONFLICT (id) DO UPDATE
            SET boot = excluded.boot, since_boot = excluded.since_boot, steady = excluded.steady, wall = excluded.wall
            """,
            boot=self._boot,
            since_boot=self._machine.since_boot(),
            steady=self.steady(),
            wall=self._machine.now(),
        )

    def steady(self) -> float:
        """Return the seconds that count."""
        return self._offset + self._machine.since_boot()

    def now(self) -> float:
        """Return the time of day, in seconds since the epoch, for people."""
        return self._machine.now()
