"""Chromium without a window, steered by its DevTools protocol: sizes, themes, scripts on and off, screenshots."""

import asyncio
import itertools
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from harness.processes import Daemon

__all__ = ["Chromium", "Tab"]

_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--remote-debugging-port=0",
)
_LOAD_SECONDS: Final = 300


class Tab:
    """A page of the browser.

    Parameters
    ----------
    socket
        What its commands go through.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """What the browser found wrong with the page, such as what its policy forbids."""

    async def listen(self) -> None:
        """Take what the browser says, until it is gone."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            elif said["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif said["method"] == "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(said["params"]["exceptionDetails"]))

    async def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_LOAD_SECONDS):
            said = await answer
        assert "error" not in said, f"{method}: {said}"
        result: dict[str, Any] = said["result"]
        return result

    async def show(self, *, width: int, theme: str, scripts: bool = True) -> None:
        """Choose the size and the theme, and whether the page's scripts run."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        await self.command("Emulation.setScriptExecutionDisabled", value=not scripts)

    async def open(self, url: str) -> None:
        """Load a page to its end."""
        self._loaded.clear()
        result = await self.command("Page.navigate", url=url)
        assert "errorText" not in result, result
        async with asyncio.timeout(_LOAD_SECONDS):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:  # noqa: ANN401 - whatever it is
        """Evaluate an expression in the page."""
        result = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def text(self, selector: str = "body") -> str:
        """Return what somebody reads in a part of the page."""
        return str(await self.value(f"document.querySelector({selector!r})?.innerText ?? ''"))

    async def screenshot(self, path: Path) -> bytes:
        """Take a picture of the whole page."""
        result = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        content = b64decode(result["data"])
        path.write_bytes(content)
        return content


class Chromium:
    """A browser.

    Parameters
    ----------
    directory
        Where its profile and its log are.
    """

    def __init__(self, directory: Path) -> None:
        self._profile = directory / "profile"
        self._daemon = Daemon(
            "chromium",
            ["chromium", *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            log=directory / "chromium.log",
            env={"HOME": str(directory)},
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Chromium"]:
        """Run it."""
        port = self._profile / "DevToolsActivePort"

        async def listens() -> bool:
            return port.exists() and bool(port.read_text())

        try:
            await self._daemon.start(listens)
            self._address = f"http://127.0.0.1:{port.read_text().split()[0]}"
            yield self
        finally:
            await self._daemon.kill()

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """Open a page of one's own."""
        async with aiohttp.ClientSession() as session:
            async with session.put(f"{self._address}/json/new?about:blank") as response:
                target = await response.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                try:
                    for domain in ("Page", "Runtime", "Log"):
                        await tab.command(f"{domain}.enable")
                    yield tab
                finally:
                    listening.cancel()
