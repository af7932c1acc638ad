"""The unix socket on which others find a service."""

import os
import socket
import stat
from pathlib import Path

from services.common.errors import SuiteError

__all__ = ["SocketError", "listen"]


class SocketError(SuiteError):
    """A socket cannot be listened on."""


def listen(path: Path, *, setting: str) -> socket.socket:
    """Make a socket that root alone can open, and listen on it. Blocks.

    Parameters
    ----------
    path
        Where it is made; the socket that a killed process left there makes way.
    setting
        The setting that says so, for messages.

    Raises
    ------
    SocketError
        Another process listens there, or it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _make_way(path, setting)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The socket gives root's power over the layers to whoever can open it.
        old = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(old)
    except OSError as error:
        raise SocketError(f"cannot listen on {path}: {error.strerror or error}: set {setting}") from error
    listener.listen(128)
    return listener


def _make_way(path: Path, setting: str) -> None:
    """Remove the socket that a killed process left; a bind over it would fail."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path} is there and is no socket: set {setting}, or remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        else:
            raise SocketError(f"another process listens on {path}: stop it, or set {setting}")
