"""`python -m harness.bench.round_server PORT TAGS`: a registry and a publisher that answer at once.

As little as can be, so that what is measured is who asks. Every repository has the same tags, `t0` and so on, whose
digests never change; everything that is asked for is published. The last line of `/requests` counts what came.
"""

import asyncio
import hashlib
import json
import sys
from typing import Final

__all__: list[str] = []

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_TIME: Final = "2026-01-02T03:04:05+00:00"
_PAGE: Final = 1000


class _Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, tags: int, counts: dict[str, int], published: dict[str, str]) -> None:
        self.tags = tags
        self.counts = counts
        self.published = published
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers are written to."""
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError(f"cannot be written to: {transport!r}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0 and self._transport is not None:
            head = self._buffer[:end].decode("latin-1")
            size = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
            )
            if len(self._buffer) < end + 4 + size:
                return
            body = self._buffer[end + 4 : end + 4 + size]
            self._buffer = self._buffer[end + 4 + size :]
            method, path, _ = head.split("\r\n", 1)[0].split(" ")
            self._transport.write(self._answer(method, path, body))

    def _answer(self, method: str, path: str, body: bytes) -> bytes:
        kind = f"{method} {'tags' if '/tags/list' in path else 'manifests' if '/manifests/' in path else path}"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if method == "HEAD":
            digest = hashlib.sha256(path.encode()).hexdigest()
            return _head(f"Content-Type: {_MANIFEST}\r\nDocker-Content-Digest: sha256:{digest}\r\n", 500)
        if "/tags/list" in path:
            return self._tags(path)
        if path == "/requests":
            return _document(self.counts)
        if path == "/v1/images/checked":
            return _document({"unknown": []})
        if method == "POST":
            asked = json.loads(body)
            self.published[asked["name"]] = asked["digest"]
        else:
            name = path.removeprefix("/v1/images/")
            asked = {"name": name, "digest": self.published[name]}
        return _document(
            {
                "name": asked["name"],
                "reference": asked["name"],
                "digest": asked["digest"],
                "published_digest": asked["digest"],
                "state": "published",
                "asked_at": _TIME,
                "updated_at": _TIME,
            }
        )

    def _tags(self, path: str) -> bytes:
        repository, _, query = path.partition("?")
        start = int(query.partition("last=t")[2] or -1) + 1
        page = [f"t{number}" for number in range(start, min(start + _PAGE, self.tags))]
        more = start + _PAGE < self.tags
        link = f'Link: <{repository}?n={_PAGE}&last={page[-1]}>; rel="next"\r\n' if more else ""
        return _document({"name": "bench", "tags": page}, link)


def _head(headers: str, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}\r\n".encode()


def _document(document: object, headers: str = "") -> bytes:
    content = json.dumps(document).encode()
    return _head(f"Content-Type: application/json\r\n{headers}", len(content)) + content


async def _serve(port: int, tags: int) -> None:
    counts: dict[str, int] = {}
    published: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(tags, counts, published), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
