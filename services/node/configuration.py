"""All settings of a front end's process."""

import os
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import Settings, SettingsError
from services.node.settings import NodeSettings

__all__ = ["Configuration"]

_FrontEnd = TypeVar("_FrontEnd", bound=NodeSettings)
_Group = TypeVar("_Group", bound=Settings)


@dataclass(frozen=True, kw_only=True)
class Configuration(Generic[_FrontEnd]):
    """All settings of the process."""

    settings: _FrontEnd
    limits: ArchiveLimits
    store: ObjectStoreSettings | None
    """None where nothing is said about an object store."""

    @classmethod
    def load(cls, front_end: type[_FrontEnd]) -> Self:
        """Read the environment.

        Raises
        ------
        SettingsError
            Some are missing, unknown or wrong; the text names those of every class.
        """
        problems: list[str] = []
        settings = _load(front_end, problems)
        limits = _load(ArchiveLimits, problems)
        store = _load(ObjectStoreSettings, problems) if _has_store() else None
        if problems or settings is None or limits is None:
            raise SettingsError("; ".join(problems))
        return cls(settings=settings, limits=limits, store=store)


def _load(group: type[_Group], problems: list[str]) -> _Group | None:
    try:
        return group.load()
    except SettingsError as error:
        problems.append(str(error))
        return None


def _has_store() -> bool:
    """Whether anything is said about an object store; what is missing then, its settings tell."""
    return any(name.upper().startswith("LAYER_STORE_") and value for name, value in os.environ.items())
