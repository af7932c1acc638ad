"""Settings of rounds, which the converter's settings have among their own."""

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, SecretStr

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.common.settings import CommaSeparated, Settings, read_secret

__all__ = ["RoundsSettings"]

_PUBLISHER: Final = re.compile(r"(?P<repository>[^=]+)=(?P<url>https?://[^\s@?#]+)")


def _publisher(text: str) -> str:
    match = _PUBLISHER.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"a publisher is written REPOSITORY=http(s)://HOST[:PORT], not {text[:200]!r}")
    RepositoryName(match["repository"])
    return text


class RoundsSettings(Settings):
    """What the converter's settings derive from, for rounds."""

    publishers: CommaSeparated[Annotated[str, AfterValidator(_publisher)]] = ()
    """The publisher of each repository that is kept up to date, as `REPOSITORY=URL`, separated by commas."""
    publisher_token: SecretStr | None = None
    """Token that the publishers want to see: the general one, or a project's."""
    publisher_tokens: Path | None = None
    """Directory of tokens, one file for each repository, of its name; one that is not there has the general token."""
    state: Path = Path("/var/lib/cvmfs-thin-converter")
    """Directory of what is remembered of every image where that is in no database, of the last good versions of wish
    lists, and of the lock that keeps other converters out of it."""
    interval: PositiveFloat = 900
    """Seconds between two questions for an image whose wish does not say how often; they are spread by a tenth."""
    reread: PositiveFloat = 60
    """Seconds between two looks at the wish lists."""
    retry_first: PositiveFloat = 10
    """Seconds before what failed is tried again; doubled every time."""
    retry_last: PositiveFloat = 900
    """Most seconds between two attempts, however many failed."""
    retention_interval: PositiveFloat = 3600
    """Seconds between two looks for images that are to be removed."""
    removals: NonNegativeInt = 20
    """Most images that may be removed at a time; if more are due, none is removed, and it is said loudly. 0 removes
    nothing."""
    removal_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Most images that may be removed at a time, as a part of all there are; one may always be."""
    dry_run: bool = False
    """Whether nothing is asked for, pushed or removed, but only logged."""
    notifications: Path | None = None
    """File that gets a line of JSON for everything that happens, as DUCC writes them."""

    def publisher_places(self) -> dict[RepositoryName, tuple[str, SecretStr | None]]:
        """Return URL and token of the publisher of each repository.

        Raises
        ------
        SettingsError
            The file of a token cannot be read.
        """
        places: dict[RepositoryName, tuple[str, SecretStr | None]] = {}
        for text in self.publishers:
            name, _, url = text.partition("=")
            token = self.publisher_token
            if self.publisher_tokens is not None and (self.publisher_tokens / name).exists():
                token = read_secret(self.variable("publisher_tokens"), self.publisher_tokens / name)
            places[RepositoryName(name)] = (url, token)
        return places
