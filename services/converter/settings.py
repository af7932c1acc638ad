"""Settings of the converter, read from `CONVERTER_*` environment variables."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.logs import LogFormat, LogLevel
from services.converter.hints.settings import HintsSettings
from services.converter.rounds.settings import RoundsSettings
from services.converter.wishlist.settings import WishListSettings

__all__ = ["ConverterSettings"]


class ConverterSettings(WishListSettings, RoundsSettings, HintsSettings):
    """Everything that an administrator decides about the converter."""

    model_config = SettingsConfigDict(env_prefix="CONVERTER_")

    host: str = "127.0.0.1"
    """Address to listen on, for webhooks and for whoever watches the converter."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8481
    """Port to listen on; 0 takes a free one and logs it."""
    log_level: LogLevel = LogLevel.INFO
    """Least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """Form of the log on standard error; auto is console on a terminal and json elsewhere."""
