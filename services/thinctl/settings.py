"""Which publisher is meant, and what lets one change it."""

import os
from pathlib import Path
from typing import Final

from pydantic import HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import Settings, read_secret
from services.publisher.settings import PublisherSettings

__all__ = ["ThinctlSettings", "publisher_token", "publisher_url"]

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - nothing is bound here
"""Where a server that listens on every address is found."""


class ThinctlSettings(Settings):
    """Everything that an operator decides about `thinctl`. Beside a publisher, its own settings do."""

    model_config = SettingsConfigDict(env_prefix="THINCTL_")

    publisher: HttpUrl | None = None
    """URL of the publisher, `http(s)://HOST[:PORT]`; by default where PUBLISHER_HOST and PUBLISHER_PORT say it is."""
    token: SecretStr | None = None
    """The publisher's token, for commands that change something; by default PUBLISHER_EVENT_TOKEN."""


def publisher_url(option: str | None) -> str:
    """Find the publisher: as an option names it, or the settings, or where the one of this machine listens.

    Raises
    ------
    SettingsError
        A setting is wrong.
    """
    configured = ThinctlSettings.load().publisher
    if option is not None or configured is not None:
        return option or str(configured)
    if not _beside_publisher():
        default = PublisherSettings.model_fields
        return f"http://{default['host'].default}:{default['port'].default}"
    settings = PublisherSettings.load()
    return f"http://{_EVERYWHERE.get(settings.host, settings.host)}:{settings.port}"


def publisher_token(option: Path | None) -> SecretStr | None:
    """Find the token: in the file that an option names, or in the settings, or in those of this machine's publisher.

    Raises
    ------
    SettingsError
        A setting is wrong, or the file cannot be read.
    """
    if option is not None:
        return read_secret("--token-file", option)
    token = ThinctlSettings.load().token
    return PublisherSettings.load().event_token if token is None and _beside_publisher() else token


def _beside_publisher() -> bool:
    """Whether this environment is a publisher's, as in its container."""
    return bool(os.environ.get("PUBLISHER_REPOSITORY"))
