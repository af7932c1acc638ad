"""A clock that nobody can set: what the retention of images and the times of polls are counted by.

The time of day is set by people and by daemons, sometimes by years. A clock that jumps must remove no image and ask no
registry a thousand times. So durations are counted by the kernel's clock since the boot, which goes on in suspended
machines and for all processes alike; over a reboot the time of day counts, an hour at most.

Where several converters share a database, another machine goes on where the last one was just as after a reboot, by the
time of day of the database's machine. While one works its own kernel counts. So a clock that is set there counts only
from one converter to the next, an hour at most, and backwards not at all.
"""

import time
from pathlib import Path
from typing import Final

from sqlalchemy import select

from services.common.database.expressions import given, insert, time_of_day
from services.converter.state.database import StateDatabase
from services.converter.state.tables import clock

__all__ = ["MachineClock", "SteadyClock"]

_ACROSS_BOOTS: Final = 3600.0
"""Most seconds that are believed to have passed where only the time of day says so."""
_MOMENT: Final = {name: given(name) for name in ("boot", "since_boot", "steady")} | {"wall": time_of_day("wall")}
_READ: Final = select(
    clock.c.boot, clock.c.since_boot, clock.c.steady, clock.c.wall, time_of_day("present").label("present")
)
_SAVE: Final = insert(clock).values(id=1, **_MOMENT).on_conflict_do_update(index_elements=[clock.c.id], set_=_MOMENT)
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
    database
        Where it is kept.
    machine
        The clocks that it is made of.
    """

    def __init__(self, *, database: StateDatabase, machine: MachineClock) -> None:
        self._database = database
        self._machine = machine
        self._boot = ""
        self._offset = 0.0

    async def read(self) -> None:
        """Go on where the last process was; raises `StateError`."""
        self._boot = self._machine.boot()
        rows = await self._database.run(_READ, present=self._machine.now())
        since_boot = self._machine.since_boot()
        if not rows:
            self._offset = -since_boot
            return
        (row,) = rows
        if row["boot"] == self._boot:
            passed = since_boot - row["since_boot"]
        else:
            passed = min(row["present"] - row["wall"], _ACROSS_BOOTS)
        self._offset = row["steady"] + max(passed, 0.0) - since_boot

    async def save(self) -> None:
        """Record how late it is; raises `StateError`."""
        await self._database.run(
            _SAVE,
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
