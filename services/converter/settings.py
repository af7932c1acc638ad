"""Settings of the converter, read from `CONVERTER_*` environment variables."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.database.url import checked_url
from services.common.logs import LogFormat, LogLevel
from services.converter.hints.settings import HintsSettings
from services.converter.rounds.settings import RoundsSettings
from services.converter.wishlist.settings import WishListSettings

__all__ = ["ConverterSettings"]


class ConverterSettings(WishListSettings, RoundsSettings, HintsSettings):
    """Everything that an administrator decides about the converter."""

    model_config = SettingsConfigDict(env_prefix="CONVERTER_")

    database: str | None = None
    """Database of what is remembered, postgresql://USER@HOST[:PORT]/DATABASE, which several converters may share: one
    works, the others stand by. Without it, that is in files below `CONVERTER_STATE`."""
    database_password: SecretStr | None = None
    """Password of the database."""
    host: str = "127.0.0.1"
    """Address to listen on, for webhooks and for whoever watches the converter."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8481
    """Port to listen on; 0 takes a free one and logs it."""
    log_level: LogLevel = LogLevel.INFO
    """Least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """Form of the log on standard error; auto is console on a terminal and json elsewhere."""

    @field_validator("database")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        return None if url is None else checked_url(url, remedy="CONVERTER_DATABASE_PASSWORD_FILE")
