"""What names a publisher's state directory to other machines, as the holder of the repository's lease."""

import contextlib
import os
import secrets
from pathlib import Path

from services.common.durable import sync_directory

__all__ = ["holder_name"]


def holder_name(path: Path) -> str:
    """Return what names this state directory: made once, by whichever process comes first."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text("ascii")
    temporary = path.with_name(f".holder-{secrets.token_hex(8)}")
    temporary.write_text(f"{os.uname().nodename} {secrets.token_hex(8)}", "ascii")
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
    sync_directory(path.parent)
    return path.read_text("ascii")
