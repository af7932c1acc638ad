"""Settings of the publisher, read from `PUBLISHER_*` environment variables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import ByteSize, Field, NonNegativeFloat, PositiveFloat, PositiveInt, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.database.url import checked_url
from services.common.layout import LayerLayout
from services.common.logs import LogFormat, LogLevel
from services.common.repository_name import RepositoryNameField
from services.common.settings import Settings

__all__ = ["PublisherSettings", "RepositoryKind"]

_MIN_TOKEN = 16


class RepositoryKind(StrEnum):
    """The kinds of repository that layers can be published to."""

    DIRECTORY = "directory"
    """A plain directory tree, for machines without CVMFS."""
    CVMFS_SERVER = "cvmfs_server"
    """A CVMFS repository on its stratum 0, through the `cvmfs_server` program."""
    NATIVE = "native"
    """A CVMFS repository that the publisher writes itself."""


class PublisherSettings(Settings):
    """Everything that an administrator decides about the publisher."""

    model_config = SettingsConfigDict(env_prefix="PUBLISHER_")

    repository: RepositoryNameField
    """Name of the repository that layers are published to. Objects whose metadata names another one are refused."""
    repository_kind: RepositoryKind = RepositoryKind.DIRECTORY
    """How the repository is written."""
    directory: Path | None = None
    """Kinds directory and native: root of the repository. For kind directory it must be set, and is made where it does
    not exist; for kind native `thin-repository create` makes it, and without it the repository is in a bucket, which
    `REPOSITORY_STORE_*` variables name."""
    keys: Path = Path("/etc/cvmfs/keys")
    """Kind native: directory of the repository's keys."""
    cvmfs_mount: Path = Path("/cvmfs")
    """Kind cvmfs_server: directory that repositories are mounted in for writing."""
    cvmfs_spool: Path = Path("/var/spool/cvmfs")
    """Kind cvmfs_server: directory of the program's own state."""
    cvmfs_configuration: Path = Path("/etc/cvmfs/repositories.d")
    """Kind cvmfs_server: directory of the repositories' configuration, which holds NAME/server.conf."""
    cvmfs_transaction_timeout: PositiveFloat = 600
    """Kind cvmfs_server: most seconds that opening a transaction may take."""
    cvmfs_publish_timeout: PositiveFloat = 7200
    """Kind cvmfs_server: most seconds that publishing may take; after that it is ended and the transaction aborted."""
    cvmfs_abort_timeout: PositiveFloat = 600
    """Kind cvmfs_server: most seconds that aborting may take."""
    layout: LayerLayout = LayerLayout.FLAT
    """Paths of layers that thin images name: flat adds a link /DIGEST to every layer's home below /.layers."""

    name: str | None = None
    """What this publisher is called where several are shown; by default the host's name."""
    host: str = "127.0.0.1"
    """Address to listen on. Reading needs no token, so this is the bound of who may read."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8480
    """Port to listen on; 0 takes a free one and logs it."""
    event_token: SecretStr
    """Token that object stores, and operators who change something, must show, at least 16 characters."""
    projects: Path | None = None
    """File of the projects that may have images published, a YAML list of `project`, `token` or `token_file`, and
    `names`, globs of image names; it is read again when it changes."""
    event_limit: ByteSize = ByteSize(1 << 20)
    """Largest notification that is read."""

    log_level: LogLevel = LogLevel.INFO
    """Least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """Form of the log on standard error; auto is console on a terminal and json elsewhere."""

    state: Path = Path("/var/lib/cvmfs-thin-publisher")
    """Directory of the publisher's lock, and of its journal where that is a file."""
    database: str | None = None
    """The journal's database, postgresql://USER@HOST[:PORT]/DATABASE; without it, the journal is a file below
    `PUBLISHER_STATE`."""
    database_password: SecretStr | None = None
    """Password of the journal's database."""
    lease_seconds: Annotated[int, Field(ge=3, le=600)] = 15
    """Where the journal is in PostgreSQL: seconds after which others take over from a publisher that hangs or is cut
    off."""
    spool: Path = Path("/var/spool/cvmfs-thin-publisher")
    """Directory for layer archives that have been fetched and are not published yet."""
    spool_limit: ByteSize = ByteSize(20 << 30)
    """Most bytes that the spool may hold; a larger layer or image is let in beside that, one at a time."""

    fetch_concurrency: PositiveInt = 4
    """Layers that are fetched and prepared at the same time."""
    image_concurrency: PositiveInt = 32
    """Images that are worked on at the same time, of one registry half as many; their layers share the workers of
    `PUBLISHER_FETCH_CONCURRENCY`."""
    keep_replaced: NonNegativeFloat = 604800
    """Seconds for which the layers of an image that was replaced or removed are kept at least, where whoever asked for
    that does not say."""
    collect_after: NonNegativeFloat = 2592000
    """Seconds since an image named a layer last, after which the layer is taken out of the repository, if it came from
    a registry and the publisher has seen for a day that nothing names it. Layers of commits stay until an operator
    names them."""
    collect_limit: PositiveInt = 1000
    """Most layers that one collection takes out."""
    collect_interval: NonNegativeFloat = 86400
    """Seconds between two collections; 0 for none but those that are asked for."""
    check_interval: NonNegativeFloat = 0
    """Seconds between two checks of whether repository, journal and bucket agree, the first one so long after the
    start; 0 for none but those that are asked for."""
    batch_layers: PositiveInt = 256
    """Most layers that one transaction publishes."""
    batch_size: ByteSize = ByteSize(16 << 30)
    """Most uncompressed bytes that one transaction publishes; one larger layer goes alone."""
    sweep_interval: PositiveFloat = 900
    """Seconds between two sweeps of the bucket for layers that no notification announced."""
    upload_lifetime: PositiveFloat = 86400
    """Seconds after which an upload in parts that is not completed counts as abandoned, and a sweep removes its parts
    from the bucket; more than the slowest upload takes."""
    retry_first: PositiveFloat = 1
    """Seconds before a failed layer is tried again; doubled every time."""
    retry_last: PositiveFloat = 600
    """Most seconds between two attempts, however many failed."""
    retry_refused_images: NonNegativeFloat = 86400
    """Seconds after which an image that was refused is looked at once more, since registries are mended; 0 for
    never."""

    @property
    def journal_file(self) -> Path:
        """Where the journal is, if it is a file."""
        return self.state / "journal.sqlite"

    @field_validator("database")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        return None if url is None else checked_url(url, remedy="PUBLISHER_DATABASE_PASSWORD_FILE")

    @field_validator("event_token")
    @classmethod
    def _long_enough(cls, token: SecretStr) -> SecretStr:
        if len(token.get_secret_value()) < _MIN_TOKEN:
            raise ValueError(f"has fewer than {_MIN_TOKEN} characters")  # the value itself is a secret
        return token
