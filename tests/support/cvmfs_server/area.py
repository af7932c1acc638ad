"""The directories and mounts of a repository on its stratum 0."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["Area"]


class Area:
    """One repository's state, named as the real program names it.

    Parameters
    ----------
    root
        `$CVMFS_STANDIN`.
    name
        The repository.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        # In a container they are links to where the real program has them.
        mount, spools, storage, control = ((root / part).resolve() for part in ("mount", "spool", "storage", "control"))
        self.union = mount / name
        spool = spools / name
        self.rdonly = spool / "rdonly"
        self.upper = spool / "scratch" / "current"
        self._work = spool / "scratch" / "work"
        self.transaction_flag = spool / "in_transaction.lock"
        self._publishing_lock = spool / "is_publishing.lock"
        self.revisions = storage / name / "revisions"
        self.current = storage / name / "current"
        self.control = control / name
        self._held: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is such a repository."""
        return self.current.exists()

    @property
    def revision(self) -> int:
        """Number of the published revision."""
        return int(os.readlink(self.current).rpartition("/")[2])

    def create(self) -> None:
        """Make an empty repository, as `mkfs` does."""
        self.union.mkdir(parents=True, exist_ok=True)
        for directory in (self.rdonly, self.upper, self._work, self.revisions / "1", self.control):
            directory.mkdir(parents=True)
        os.setxattr(self.revisions / "1", "user.revision", b"1")
        self.current.symlink_to("revisions/1")
        self.mount()

    def lock_publishing(self) -> bool:
        """Take the lock that a publish holds while it lives; False if another one does."""
        self._held = os.open(self._publishing_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held)
            return False
        return True

    def unlock_publishing(self) -> None:
        """Give the lock back."""
        if self._held is not None:
            os.close(self._held)

    @property
    def healthy(self) -> bool:
        """Whether everything is mounted, the newest revision at that, and writable in a transaction only."""
        mounted = self._mounted()
        return (
            {str(self.rdonly), str(self.union)} <= mounted.keys()
            and os.getxattr(self.rdonly, "user.revision") == str(self.revision).encode()
            and mounted[str(self.union)] == self.transaction_flag.exists()
        )

    def repair(self) -> None:
        """Mount what is not as it should be."""
        if not self.healthy:
            self.unmount()
            self.mount()
            if self.transaction_flag.exists():
                self.let_write(True)

    def mount(self) -> None:
        """Mount the published revision, and the union over it, read-only."""
        _run("mount", "--bind", self.revisions / str(self.revision), self.rdonly)
        _run("mount", "-o", "remount,bind,ro", self.rdonly)
        options = f"nodev,lowerdir={self.rdonly},upperdir={self.upper},workdir={self._work}"
        _run("mount", "-t", "overlay", f"overlay_{self.name}", "-o", options, self.union)
        self.let_write(False)

    def let_write(self, writable: bool) -> None:  # noqa: FBT001 - what it says
        """Make the union writable, or not."""
        _run("mount", "-o", f"remount,bind,nodev,{'rw' if writable else 'ro'}", self.union)

    def open(self) -> None:
        """Begin a transaction."""
        self.transaction_flag.touch()
        self.let_write(True)

    def unmount(self) -> None:
        """Unmount everything."""
        for mounted in (self.union, self.rdonly):
            # Only the mount table tells: to os.path.ismount a bind mount within one file system is any directory.
            if str(mounted) in self._mounted():
                _run("umount", "--lazy", mounted)

    def drop(self) -> None:
        """Unmount everything and drop what has been changed."""
        self.unmount()
        for directory in (self.upper, self._work):
            shutil.rmtree(directory)
            directory.mkdir()

    def close(self) -> None:
        """Mount what is published now, and end the transaction."""
        self.mount()
        self.transaction_flag.unlink()

    def _mounted(self) -> dict[str, bool]:
        """Return what is mounted of the repository, and whether it is writable."""
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return {
            fields[4]: "rw" in fields[5].split(",")
            for fields in lines
            if fields[4] in (str(self.rdonly), str(self.union))
        }

    def has_writers(self) -> bool:
        """Whether a process has a file of the union open for writing."""
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                target = os.readlink(link)
                flags = (link.parent.parent / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0]
            except OSError:
                continue
            if target.startswith(f"{self.union}/") and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                return True
        return False


def _run(*argv: str | Path) -> None:
    subprocess.run([str(argument) for argument in argv], check=True)
