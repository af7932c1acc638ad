"""The driver of the engine that this plugin serves: none before Init, one ever after, across restarts."""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiofiles
import structlog

from services.graphdriver.errors import GraphDriverError, NotInitialisedError
from services.graphdriver.factory import DriverFactory
from services.node.driver import Driver
from services.node.errors import UnsupportedError
from services.node.state import NodeState

__all__ = ["Session"]

_log = structlog.get_logger(__name__)

_STATE: Final = "init.json"


class Session:
    """Remembers what Init said: an engine does not call it again when only the plugin was restarted.

    Parameters
    ----------
    state
        Directory for the memory.
    factory
        Builds the driver.
    """

    def __init__(self, *, state: Path, factory: DriverFactory) -> None:
        self._state = state
        self._factory = factory
        self._driver: Driver | None = None
        self._lock = asyncio.Lock()

    @property
    def driver(self) -> Driver:
        """The driver.

        Raises
        ------
        NotInitialisedError
            Init has never been called.
        """
        if self._driver is None:
            raise NotInitialisedError("the engine has not initialised this driver yet (no Init)")
        return self._driver

    @property
    def initialised(self) -> bool:
        """Whether an engine has called Init, also of an earlier process."""
        return self._driver is not None

    async def state(self) -> NodeState | None:
        """Return how the node is; None as long as no engine has called Init."""
        return None if self._driver is None else await self._driver.reports.state.read()

    async def restore(self) -> None:
        """Go on where an earlier process of this plugin stopped.

        Raises
        ------
        GraphDriverError
            What it remembered is damaged.
        """
        place = self._state / _STATE
        try:
            async with aiofiles.open(place, "rb") as file:
                home = Path(json.loads(await file.read())["home"])
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError) as error:
            raise GraphDriverError(
                f"{place} is damaged: {error}: remove it, and restart the engine, which has it written anew"
            ) from error
        if not await asyncio.to_thread(home.is_dir):
            # Its file system is not mounted yet, or the engine is gone; one that comes calls Init.
            _log.warning("home_missing", home=str(home))
            return
        await self._start(home)

    async def initialise(self, home: Path, options: Sequence[str]) -> None:
        """Serve an engine; calling it again changes nothing for layers in use.

        Parameters
        ----------
        home
            Directory for everything that the driver keeps.
        options
            The engine's storage options; there are none for this driver.

        Raises
        ------
        UnsupportedError
            There is an option.
        """
        if options:
            raise UnsupportedError(
                f"unknown storage option {options[0]!r}: this driver is configured by GRAPHDRIVER_* environment "
                "variables, remove storage-opts from the engine's configuration"
            )
        if not home.is_absolute():
            raise UnsupportedError(f"the home directory is not an absolute path: {str(home)!r}")
        async with self._lock:
            if self._driver is None or self._driver.home != home:
                await self._start(home)
            await self.driver.begin()
            await asyncio.to_thread(self._remember, home)

    async def _start(self, home: Path) -> None:
        driver = await asyncio.to_thread(self._factory.build, home)
        await driver.resume()
        self._driver = driver

    def _remember(self, home: Path) -> None:
        content = json.dumps({"home": str(home)}) + "\n"
        # Mostly it is the same one again, and then a full disk does not keep the engine from starting.
        with contextlib.suppress(FileNotFoundError):
            if (self._state / _STATE).read_text() == content:
                return
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, new = tempfile.mkstemp(dir=self._state)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, self._state / _STATE)

    async def keep_house(self, interval: float) -> None:
        """Do, for ever, what has to be done now and then."""
        while True:
            await asyncio.sleep(interval)
            if self._driver is not None:
                await self._driver.house.keep()
