"""The form of answers: JSON documents, errors as `{"error": TEXT}`."""

import json
from collections.abc import Mapping

from aiohttp import web

__all__ = ["answer", "failure"]


def answer(document: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Answer with a document."""
    return web.Response(text=json.dumps(document) + "\n", status=status, content_type="application/json")


def failure(status: int, text: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with an error."""
    return web.Response(
        text=json.dumps({"error": text}) + "\n", status=status, content_type="application/json", headers=headers
    )
