import asyncio
import os
import signal

import pytest
from structlog.testing import capture_logs

from services.common.stopping import until_told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_hang_up_ends_nothing_and_says_so(number: signal.Signals) -> None:
    stop = until_told()
    with capture_logs() as logs:
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(60):
            while not logs:  # noqa: ASYNC110 - the handler runs in a later turn of this loop, and has no event
                await asyncio.sleep(0)
        assert "settings are read at the start" in logs[0]["event"]
    assert not stop.is_set()
    os.kill(os.getpid(), number)
    async with asyncio.timeout(60):
        await stop.wait()
