"""What of the converter is set up by environment variables."""

from pydantic import HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import Settings

__all__ = ["Docker2CvmfsSettings"]


class Docker2CvmfsSettings(Settings):
    """Everything that a site decides about `docker2cvmfs` once; the object store has its own settings."""

    model_config = SettingsConfigDict(env_prefix="DOCKER2CVMFS_")

    publisher: HttpUrl | None = None
    """URL of the repository's publisher, `http(s)://HOST[:PORT]`, where the option `--publisher` names none."""
    token: SecretStr | None = None
    """The publisher's token, or a project's. With it, the publisher is asked to fetch images from their registries by
    itself; without it, layers are brought to it through the bucket."""
