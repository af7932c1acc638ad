import time

from tests.support.native import NativeSite


async def test_it_is_known_when_the_whitelist_expires(site: NativeSite) -> None:
    async with site.opened() as repository:
        days = (await repository.trusted_until() - time.time()) / 86400
    # Valid for thirty days, and for clients until the beginning of the hour.
    assert 29.9 < days <= 30
