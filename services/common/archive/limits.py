"""How large a layer archive may be, in every respect in which it could be made absurd."""

from typing import Annotated, Final

from pydantic import ByteSize, Field
from pydantic_settings import SettingsConfigDict

from services.common.archive.errors import ArchiveLimitError
from services.common.archive.notes import show
from services.common.settings import Settings

__all__ = ["ArchiveLimits"]

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30

_Size = Annotated[ByteSize, Field(ge=1)]
_Count = Annotated[int, Field(ge=1)]


class ArchiveLimits(Settings):
    """Limits that are enforced while an archive streams; of layers that are local to a node, a few of them.

    The defaults let every real layer pass that the authors have seen, by a wide margin.
    """

    model_config = SettingsConfigDict(env_prefix="LAYER_LIMIT_")

    stream_size: _Size = ByteSize(128 * _GIB)
    """Size of the uncompressed tar stream."""
    tree_size: _Size = ByteSize(128 * _GIB)
    """Sum of the sizes of the layer's files, holes included: a small archive could else fill a repository."""
    ratio: _Count = 1000
    """Uncompressed size over compressed size, once `ratio_free_size` is passed."""
    ratio_free_size: _Size = ByteSize(8 * _GIB)
    """Uncompressed size up to which any ratio passes: a file of zeros compresses 30,000 times and is no attack."""
    entries: _Count = 2_000_000
    """Number of entries."""
    names_size: _Size = ByteSize(256 * _MIB)
    """Sum of the lengths of the entries' names and targets: what of an archive may have to be remembered."""
    path_length: _Count = 4095
    """Length of a path, as PATH_MAX leaves it."""
    path_depth: _Count = 256
    """Number of a path's components."""
    link_length: _Count = 4095
    """Length of a symbolic link's target."""
    header_size: _Size = ByteSize(_MIB)
    """Size of one extended header (PAX records, GNU long name)."""
    xattr_count: _Count = 256
    """Number of extended attributes of one entry."""
    xattr_name_length: _Count = 255
    """Length of an attribute's name, as the kernel limits it."""
    xattr_value_size: _Size = ByteSize(64 << 10)
    """Size of an attribute's value, as the kernel limits it."""
    sparse_extents: _Count = 262_144
    """Number of data extents of one sparse file."""
    zstd_window_log: Annotated[int, Field(ge=10, le=31)] = 26
    """Binary logarithm of the largest zstd window: the memory that decompression may take (64 MiB)."""
    seconds: Annotated[float, Field(gt=0)] = 6 * 3600
    """Time that reading one archive may take."""

    def check_stream_size(self, size: int) -> None:
        """Refuse an uncompressed stream that has come to so many bytes (ArchiveLimitError)."""
        if size > self.stream_size:
            raise ArchiveLimitError(f"the tar stream is larger than {self.stream_size} bytes (limit stream_size)")

    def check_ratio(self, plain: int, stored: int) -> None:
        """Refuse so many uncompressed bytes of so many compressed ones (ArchiveLimitError)."""
        if plain > self.ratio_free_size and plain > stored * self.ratio:
            raise ArchiveLimitError(
                f"{stored} bytes became {plain}, more than {self.ratio} times as many (limit ratio)"
            )

    def check_names_size(self, size: int) -> None:
        """Refuse names and targets of so many bytes altogether (ArchiveLimitError)."""
        if size > self.names_size:
            raise ArchiveLimitError(
                f"the names of the entries are longer than {self.names_size} bytes (limit names_size)"
            )

    def check_tree_size(self, size: int, path: bytes) -> None:
        """Refuse files of so many bytes altogether, of which `path` is the last (ArchiveLimitError)."""
        if size > self.tree_size:
            raise ArchiveLimitError(
                f"with {show(path)} the files are larger than {self.tree_size} bytes (limit tree_size)"
            )
