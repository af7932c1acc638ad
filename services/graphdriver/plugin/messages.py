"""The messages of the graphdriver plugin protocol, in the engine's own words.

Requests omit absent fields, so a field is required here exactly where an operation makes no sense without it: an empty
body, which the engine sends when it repeats a request whose body it has used up, is then refused.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.node.layers import LayerId

__all__ = ["CreateRequest", "GetRequest", "InitRequest", "LayerRequest", "PairRequest"]


def _layer_id(value: str) -> str:
    return LayerId(value)


def _parent_id(value: str) -> str:
    return LayerId(value) if value else value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path has no NUL character")
    return value


LayerIdField = Annotated[str, AfterValidator(_layer_id)]
ParentField = Annotated[str, AfterValidator(_parent_id)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LayerRequest(_Request):
    """Remove, Put, Exists, GetMetadata."""

    id: LayerIdField = Field(alias="ID")


class GetRequest(LayerRequest):
    """Get."""

    mount_label: str = Field(default="", alias="MountLabel", pattern=r'^[^"\x00\n]*$', max_length=255)


class PairRequest(LayerRequest):
    """Diff, Changes, DiffSize."""

    parent: ParentField = Field(default="", alias="Parent")


class CreateRequest(PairRequest):
    """Create and CreateReadWrite; the label counts when the layer is mounted, not here."""

    storage_opt: dict[str, str] | None = Field(default=None, alias="StorageOpt")


class IdMapping(_Request):
    """One range of a user namespace."""

    container_id: int
    host_id: int
    size: int


class InitRequest(_Request):
    """Init."""

    home: Annotated[str, AfterValidator(_path)] = Field(alias="Home", min_length=1)
    options: list[str] | None = Field(default=None, alias="Opts")
    uid_maps: list[IdMapping] | None = Field(default=None, alias="UIDMaps")
    gid_maps: list[IdMapping] | None = Field(default=None, alias="GIDMaps")
