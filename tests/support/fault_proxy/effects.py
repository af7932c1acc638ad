"""What can happen to the bytes of one direction of one connection."""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Effect", "cut", "damage", "stall", "unharmed"]

Effect = Callable[[int, bytes], Awaitable[bytes]]
"""Takes the position of some bytes in their direction and the bytes, and returns what is passed on."""


async def unharmed(_position: int, data: bytes) -> bytes:
    """Pass everything on."""
    return data


def cut(after: int) -> Effect:
    """Break the connection after so many bytes."""

    async def effect(position: int, data: bytes) -> bytes:
        if position + len(data) > after:
            raise ConnectionResetError
        return data

    return effect


def stall(after: int) -> Effect:
    """Pass nothing on after so many bytes, and keep the connection."""

    async def effect(position: int, data: bytes) -> bytes:
        if position + len(data) > after:
            await asyncio.Event().wait()
        return data

    return effect


def damage(at: int) -> Effect:
    """Flip the bits of one byte."""

    async def effect(position: int, data: bytes) -> bytes:
        if position <= at < position + len(data):
            changed = bytearray(data)
            changed[at - position] ^= 0xFF
            return bytes(changed)
        return data

    return effect
