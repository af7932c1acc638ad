"""`/v1/check`: whether repository, journal and bucket agree.

The answer is a stream of JSON documents, one a line: `{"progress": {"layers": N}}` about every second, a finding
`{"digest": ..., "image": ..., "kind": ..., "meaning": ..., "remedy": ..., "harmless": ...}` when there is one, and in
the end either `{"summary": {"layers": N, "images": N, "found": {KIND: N}}}` or, where one of the three failed,
`{"error": TEXT}`. `image` is the name of an image whose digest it is, or null for a layer.
"""

import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import asdict
from typing import Final

import structlog
from aiohttp import web

from services.common.errors import SuiteError
from services.publisher.consistency.check import CheckProgress
from services.publisher.consistency.checks import Checks
from services.publisher.consistency.model import ADVICE, Finding
from services.publisher.handlers.answers import failure
from services.publisher.handlers.token import TokenCheck

__all__ = ["ConsistencyHandler"]

_log = structlog.get_logger(__name__)

_PROGRESS_SECONDS: Final = 1.0
"""Seconds between two lines about the progress."""


class ConsistencyHandler:
    """Runs a check for whoever has the token, since it reads everything; one at a time."""

    def __init__(self, *, token: TokenCheck, checks: Checks) -> None:
        self._token = token
        self._checks = checks

    def routes(self) -> list[web.RouteDef]:
        """Give the routes."""
        return [web.post("/v1/check", self.post)]

    async def post(self, request: web.Request) -> web.StreamResponse:
        """Check, and tell what is found while it goes on."""
        self._token.demand(request)
        if self._checks.turn.locked():
            return failure(409, "a check is running already: wait for its end", headers={"Retry-After": "10"})
        async with self._checks.turn:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            try:
                await self._stream(response)
            except ConnectionResetError:
                _log.info("whoever asked for a check has gone")
                return response
            await response.write_eof()
            return response

    async def _stream(self, response: web.StreamResponse) -> None:
        progress = CheckProgress()
        try:
            await self._run(response, progress)
        except BaseExceptionGroup as errors:
            error = errors.exceptions[0]
            if not isinstance(error, SuiteError):
                raise error from errors
            await _write(response, {"error": str(error)})
        else:
            found = {kind.value: count for kind, count in progress.found.items()}
            await _write(response, {"summary": {"layers": progress.layers, "images": progress.images, "found": found}})

    async def _run(self, response: web.StreamResponse, progress: CheckProgress) -> None:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(_tell(response, progress))
            async with aclosing(self._checks.check(progress)) as findings:
                async for finding in findings:
                    await _write(response, _document(finding))
            telling.cancel()


async def _tell(response: web.StreamResponse, progress: CheckProgress) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        seconds = round(time.monotonic() - began, 3)
        await _write(response, {"progress": {"layers": progress.layers, "seconds": seconds}})


async def _write(response: web.StreamResponse, document: dict[str, object]) -> None:
    await response.write(json.dumps(document).encode() + b"\n")


def _document(finding: Finding) -> dict[str, object]:
    return {
        "digest": finding.digest,
        "image": finding.image,
        "kind": finding.kind,
        **asdict(ADVICE[finding.kind]),
    }
