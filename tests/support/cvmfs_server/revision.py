"""Making a new revision from the published one and what a transaction has changed, with what that loses."""

import os
import shutil
import stat
import sys
from pathlib import Path

__all__ = ["BundlesError", "GraftError", "PoisonError", "build_revision"]

_WHITEOUT = b".wh."
_OPAQUE_MARKER = b".wh..wh..opq"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_GRAFT = b".cvmfsgraft-"
_BUNDLES = b".cvmfsbundles"
_LONGEST_XATTR = 256


class PoisonError(Exception):
    """A test has made this name one that cannot be published."""


class BundlesError(Exception):
    """A file is taken for a list of bundles, which makes the real program panic."""


class GraftError(Exception):
    """A file is to be replaced by a content that nobody has."""


def build_revision(*, published: Path, upper: Path, destination: Path, xattrs: bool, poison: str | None) -> None:
    """Write a new revision's tree.

    Parameters
    ----------
    published
        The revision before.
    upper
        The upper directory of the transaction's overlay.
    destination
        Where to; it must not exist.
    xattrs
        `CVMFS_INCLUDE_XATTRS`.
    poison
        A name that fails.
    """
    shutil.copytree(published, destination, symlinks=True, copy_function=_copy_published)
    _Changes(xattrs=xattrs, poison=poison.encode() if poison else None).apply(
        os.fsencode(upper), os.fsencode(destination)
    )


def _copy_published(source: str, destination: str) -> None:
    status = os.lstat(source)
    if stat.S_ISREG(status.st_mode):
        shutil.copy2(source, destination, follow_symlinks=False)
        os.lchown(destination, status.st_uid, status.st_gid)
        os.chmod(destination, status.st_mode)
    else:
        _copy_node(os.fsencode(source), os.fsencode(destination), status)


def _copy_node(source: bytes, destination: bytes, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), destination)
    else:
        os.mknod(destination, status.st_mode, status.st_rdev)
        os.chmod(destination, stat.S_IMODE(status.st_mode))
    os.lchown(destination, status.st_uid, status.st_gid)


class _Changes:
    """Applies an upper directory to a tree."""

    def __init__(self, *, xattrs: bool, poison: bytes | None) -> None:
        self._xattrs = xattrs
        self._poison = poison

    def apply(self, upper: bytes, target: bytes) -> None:
        for name in sorted(os.listdir(upper)):
            if name == self._poison:
                raise PoisonError(name.decode())
            if name == _BUNDLES:
                raise BundlesError(name.decode())
            if name.startswith(_GRAFT):
                raise GraftError(name.decode())
            source, destination = upper + b"/" + name, target + b"/" + name
            status = os.lstat(source)
            if name == _OPAQUE_MARKER:
                print(f"Warning: {source!r} is an opaque marker, ignored", file=sys.stderr)
            elif name.lower().startswith(_WHITEOUT):
                _remove(target + b"/" + name[len(_WHITEOUT) :])
            elif stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                _remove(destination)
            elif stat.S_ISDIR(status.st_mode):
                self._directory(source, destination, status)
            else:
                self._leaf(source, destination, status)

    def _directory(self, source: bytes, destination: bytes, status: os.stat_result) -> None:
        opaque = _OPAQUE_XATTR in os.listxattr(source)
        if opaque or not os.path.isdir(destination) or os.path.islink(destination):
            _remove(destination)
        if not os.path.isdir(destination):
            os.mkdir(destination)
        self.apply(source, destination)
        self._metadata(source, destination, status)

    def _leaf(self, source: bytes, destination: bytes, status: os.stat_result) -> None:
        _remove(destination)
        if stat.S_ISREG(status.st_mode):
            if status.st_nlink > 1:
                print(f"Warning: hardlink {source!r}, stored as a file of its own", file=sys.stderr)
            shutil.copyfile(source, destination)
            self._metadata(source, destination, status)
        else:
            _copy_node(source, destination, status)
            os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)

    def _metadata(self, source: bytes, destination: bytes, status: os.stat_result) -> None:
        os.chown(destination, status.st_uid, status.st_gid)
        os.chmod(destination, stat.S_IMODE(status.st_mode))
        for name in os.listxattr(source) if self._xattrs else ():
            value = os.getxattr(source, name)
            if not name.startswith("trusted.overlay.") and len(value) <= _LONGEST_XATTR:
                # The length has one byte.
                os.setxattr(destination, name, value if len(value) < _LONGEST_XATTR else b"")
        os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
