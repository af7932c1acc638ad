"""What a layer archive may be, by where it is going.

One parser reads all archives, and asks the policy where readers of archives are known to disagree.

- What is **published** is held to strict rules: what the publisher has checked must be what every other reader sees.
- What is **local** to a node is taken as Docker's overlay2 takes it, which is what images are tried with. Nothing leads
  out of the layer's directory either: links are resolved as in a chroot.

Where a policy lets a disagreement pass, the reader goes on with what Docker takes: the last of two values, extended
headers before the plain one, no data behind anything but files, no word of global headers, owners modulo 2^32.

In three things a node is stricter than overlay2, since nobody's image can need them: a name that climbs above the
layer's root, which overlay2 puts at the root; a stream that ends inside the padding of a file, so that one that is cut
never passes for a whole one; and the attributes of a hard link's own entry, which are those of its target here.
"""

from typing import Final, Protocol

from pydantic import ByteSize

from services.common.archive.errors import ArchiveError, UnsafeArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.notes import show
from services.common.archive.paths import METADATA_PREFIX, OPAQUE_MARKER, WHITEOUT_PREFIX, checked_path, normal_path
from services.common.archive.xattrs import is_layer_xattr, is_local_xattr

__all__ = ["ArchivePolicy", "LocalPolicy", "PublishedPolicy"]


class ArchivePolicy(Protocol):
    """What the reader and the tree ask."""

    @property
    def limits(self) -> ArchiveLimits:
        """Enforced while reading."""

    @property
    def most_links(self) -> int:
        """Number of symbolic links that may lead to the directory of an entry."""

    def object_to(self, error: ArchiveError) -> None:
        """Raise the error about something that readers take differently, or let it pass."""

    def path(self, name: bytes) -> bytes:
        """Return a name as a path relative to the layer's root, which is the empty path.

        Raises
        ------
        UnsafeArchiveError, ArchiveLimitError
            It is none that this policy takes.
        """

    def passes_over(self, path: bytes) -> str | None:
        """Return why an entry with `.wh.` in its path is none of the layer's, if it is none.

        Raises
        ------
        UnsafeArchiveError
            It cannot mean anything.
        """

    def keeps_xattr(self, name: bytes) -> bool:
        """Tell whether an attribute is part of a layer."""


class PublishedPolicy:
    """The strict rules, for what is published."""

    most_links: Final = 0

    def __init__(self, limits: ArchiveLimits) -> None:
        self.limits: Final = limits

    def object_to(self, error: ArchiveError) -> None:
        """Raise the error."""
        raise error

    def path(self, name: bytes) -> bytes:
        """Take names that stay inside by themselves, within the limits."""
        return normal_path(name, self.limits)

    def passes_over(self, path: bytes) -> str | None:
        """Leave out AUFS's own files, which images of its time have, and what lies below them."""
        *parents, name = path.split(b"/")
        for part in parents:
            if part.startswith(METADATA_PREFIX):
                return f"{show(path)}: below a directory of AUFS's own, skipped"
            if part.startswith(WHITEOUT_PREFIX):
                raise UnsafeArchiveError(f"{show(path)} lies below a whiteout")
        if name.startswith(METADATA_PREFIX) and name != OPAQUE_MARKER:
            return f"{show(path)}: a file of AUFS's own, skipped"
        return None

    def keeps_xattr(self, name: bytes) -> bool:
        """Keep file capabilities and the users' own."""
        return is_layer_xattr(name)


_NO_SIZE: Final = ByteSize((1 << 63) - 1)
_NO_COUNT: Final = (1 << 63) - 1


class LocalPolicy:
    """Docker's rules, for what is local to a node.

    Of the limits those remain that keep an archive from stalling the node: on extended headers, on sparse files' maps,
    on time. A size is bounded by the disk alone, as under overlay2, and a path not even by the kernel's PATH_MAX.
    """

    most_links: Final = 40
    """As many as the kernel follows (path_resolution(7))."""

    def __init__(self, limits: ArchiveLimits) -> None:
        sizes = ("stream_size", "tree_size", "names_size", "xattr_value_size")
        counts = ("entries", "path_length", "path_depth", "link_length", "xattr_count", "xattr_name_length")
        self.limits: Final = limits.model_copy(
            update={**dict.fromkeys(sizes, _NO_SIZE), **dict.fromkeys(counts, _NO_COUNT)}
        )

    def object_to(self, error: ArchiveError) -> None:
        """Let it pass."""

    def path(self, name: bytes) -> bytes:
        """Take `..` for the name before it, as long as there is one."""
        path = name
        if b"/." in name or b"//" in name or name[:1] in (b"/", b".") or name[-1:] == b"/":
            parts: list[bytes] = []
            for part in name.split(b"/"):
                if part == b"..":
                    if not parts:
                        raise UnsafeArchiveError(f"{show(name)} leaves the layer by a .. component")
                    del parts[-1]
                elif part not in (b"", b"."):
                    parts.append(part)
            path = b"/".join(parts)
        return checked_path(path, self.limits)

    def passes_over(self, path: bytes) -> str | None:  # noqa: ARG002 - all are the layer's
        """Take AUFS's own files for files, as a driver does that is not AUFS."""
        return None

    def keeps_xattr(self, name: bytes) -> bool:
        """Keep POSIX ACLs and trusted ones as well."""
        return is_local_xattr(name)
