"""Set the object store up: `python -m services.setup`."""

import sys

import stamina

from services.common.errors import SuiteError
from services.common.logs import configure_logging
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import render_help
from services.setup.errors import SetupError
from services.setup.policies import agent_policy, public_policy, uploader_policy
from services.setup.settings import SetupSettings, StoreKind
from services.setup.store import Administrator, StoreBusyError, StoreUser

__all__ = ["main", "set_up"]

_PURPOSE = (
    "Sets up the object store, and ends: makes the bucket, or the two where the repository is in one as well, and in "
    "MinIO the notification and the two users, one that puts layers and one that reads, lists and deletes them. "
    "LAYER_STORE_ACCESS_KEY and LAYER_STORE_SECRET_KEY are those of the store's administrator. It can be run again at "
    "any time."
)


def set_up(settings: SetupSettings, store_settings: ObjectStoreSettings) -> None:
    """Do everything once.

    Raises
    ------
    SetupError
        Something failed; what had been made before stays, and does no harm.
    """
    uploader = StoreUser(
        name="uploader", access_key=settings.uploader_access_key, secret_key=settings.uploader_secret_key
    )
    agent = StoreUser(name="agent", access_key=settings.agent_access_key, secret_key=settings.agent_secret_key)
    administrator = Administrator(store_settings)
    repository = settings.repository_bucket
    if repository == store_settings.bucket:
        raise SetupError(f"SETUP_REPOSITORY_BUCKET: {repository} is the bucket of the layers, which nobody may read")
    administrator.make_bucket(store_settings.bucket)
    if repository:
        administrator.make_bucket(repository)
    if settings.store is StoreKind.MINIO:
        if repository:
            administrator.set_policy(repository, public_policy(repository))
        administrator.make_user(uploader, uploader_policy(store_settings.bucket))
        administrator.make_user(agent, agent_policy(store_settings.bucket, repository))
        administrator.announce_layers(settings.webhook)
    administrator.check_keys(uploader)
    administrator.check_listing(agent)


def main() -> int:
    """Set up, waiting for the store; return the exit status."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        sys.stdout.write(render_help("python -m services.setup", _PURPOSE, (SetupSettings, ObjectStoreSettings)))
        return 0
    if sys.argv[1:]:
        sys.stderr.write("the set-up takes no arguments; --help shows its settings\n")
        return 2
    try:
        settings, store_settings = SetupSettings.load(), ObjectStoreSettings.load()
        configure_logging(level=settings.log_level, output=settings.log_format)
        for attempt in stamina.retry_context(
            on=StoreBusyError, attempts=None, timeout=settings.patience, wait_initial=0.2, wait_max=3
        ):
            with attempt:
                set_up(settings, store_settings)
    except SuiteError as error:
        sys.stderr.write(f"the set-up failed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
