"""A program that downloads blobs and prints its peak memory after each, in bytes.

usage: python -m tests.support.blob_memory IMAGE DIGEST:SIZE...
"""

import asyncio
import json
import sys
from contextlib import aclosing

from harness.peak_memory import peak_memory
from services.common.digest import Digest
from services.registry.client import RegistryClient
from services.registry.reference import ImageReference
from tests.support.registries import impatient

__all__ = ["main"]


async def main(image: str, blobs: list[str]) -> list[int]:
    """Download blobs and return the peak of memory after each one."""
    peaks = []
    async with RegistryClient(options=impatient(read_timeout=20.0)) as client:
        for text in blobs:
            digest, _, size = text.partition(":")
            content = client.blob(ImageReference.parse(image), Digest(digest), int(size))
            async with aclosing(content) as pieces:
                received = sum([len(piece) async for piece in pieces])
            if received != int(size):
                raise AssertionError("the blob has another size")
            peaks.append(peak_memory())
    return peaks


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2:]))))  # noqa: T201
