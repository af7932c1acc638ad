"""HTTP servers that a program of the harness has started."""

import aiohttp

__all__ = ["answers"]


async def answers(url: str) -> bool:
    """Tell whether there is something at a URL by now."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.ok
    except aiohttp.ClientError:
        return False
