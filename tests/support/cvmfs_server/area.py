"""The directories and mounts of a repository on its stratum 0."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
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
        parts = ("mount", "spool", "storage", "control", "configuration")
        mount, spools, storage, control, configuration = ((root / part).resolve() for part in parts)
        self.union = mount / name
        spool = spools / name
        self.rdonly = spool / "rdonly"
        self.upper = spool / "scratch" / "current"
        self._work = spool / "scratch" / "work"
        self.transaction_flag = spool / "in_transaction.lock"
        self.publishing_lock = spool / "is_publishing.lock"
        self._client = spool / "cvmfs2"
        self.configuration = configuration / name / "server.conf"
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
        self._client.symlink_to(shutil.which("sleep") or "/usr/bin/sleep")
        self.configuration.parent.mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(
            f"CVMFS_REPOSITORY_NAME={self.name}\nCVMFS_REPOSITORY_TYPE=stratum0\nCVMFS_USER=root\n"
            f"CVMFS_UPSTREAM_STORAGE=local,{self.current.parent}/data/txn,{self.current.parent}\n"
        )
        self.mount()

    def configured(self, name: str) -> str | None:
        """Return a value of the repository's configuration."""
        values = dict(line.split("=", 1) for line in self.configuration.read_text().splitlines() if "=" in line)
        return values.get(name)

    def lock_publishing(self) -> bool:
        """Take the lock that a publish holds while it lives; False if another one does."""
        self._held = os.open(self.publishing_lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._held)
            self._held = None
            return False
        return True

    def unlock_publishing(self) -> None:
        """Give the lock back."""
        if self._held is not None:
            self.publishing_lock.unlink()
            os.close(self._held)
            self._held = None

    @property
    def healthy(self) -> bool:
        """Whether everything is mounted, the newest revision at that, and writable in a transaction only."""
        mounted = self._mounted()
        return (
            {str(self.rdonly), str(self.union)} <= mounted.keys()
            and self._mounted_revision() == str(self.revision).encode()
            and mounted[str(self.union)] == self.transaction_flag.exists()
        )

    def _mounted_revision(self) -> bytes | None:
        try:
            return os.getxattr(self.rdonly, "user.revision")
        except OSError as error:
            assert error.errno == errno.ENOTCONN  # noqa: PT017 - the client has died
            return None

    def repair(self) -> None:
        """Mount what is not as it should be."""
        if not self.healthy:
            self.unmount()
            self.mount()
            if self.transaction_flag.exists():
                self.let_write(True)

    def mount(self) -> None:
        """Mount the published revision, and the union over it, read-only.

        The client is a process that lives as long as its mount. As the real one it inherits the publishing lock of the
        program that starts it.
        """
        client = subprocess.Popen(
            [self._client, "infinity"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            pass_fds=() if self._held is None else (self._held,),
        )
        self._client.with_suffix(".pid").write_text(str(client.pid))
        _run("mount", "--bind", self.revisions / str(self.revision), self.rdonly)
        _run("mount", "-o", "remount,bind,ro", self.rdonly)
        options = f"nodev,lowerdir={self.rdonly},upperdir={self.upper},workdir={self._work}"
        _run("mount", "-t", "overlay", f"overlay_{self.name}", "-o", options, self.union)
        self.let_write(False)

    def let_write(self, writable: bool) -> None:  # noqa: FBT001 - what it says
        """Make the union writable, or not."""
        _run("mount", "-o", f"remount,bind,nodev,{'rw' if writable else 'ro'}", self.union)

    def flag(self) -> None:
        """Mark the beginning of a transaction."""
        self.transaction_flag.touch()

    def unmount(self) -> None:
        """Unmount everything; the client ends with its mount."""
        for mounted in (self.union, self.rdonly):
            # Only the mount table tells: to os.path.ismount a bind mount within one file system is any directory.
            if str(mounted) in self._mounted():
                _run("umount", "--lazy", mounted)
        self.end_client()

    def held(self, device: str) -> bool:
        """Whether something has the union, whose device is given, mounted a second time; it is not mounted itself."""
        for table in Path("/proc").glob("[0-9]*/mountinfo"):
            with contextlib.suppress(OSError):
                for line in table.read_text().splitlines():
                    if line.split()[2] == device or f"lowerdir={self.union}/" in line:
                        return True
        return False

    @property
    def union_device(self) -> str:
        """Number of the union's file system."""
        number = os.stat(self.union).st_dev
        return f"{os.major(number)}:{os.minor(number)}"

    def end_client(self) -> None:
        """End the CVMFS client."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            client = int(self._client.with_suffix(".pid").read_text())
            if Path(f"/proc/{client}/comm").read_text() == "cvmfs2\n":
                os.kill(client, signal.SIGKILL)

    def lose_client(self) -> None:
        """Let the CVMFS client die: what it has mounted stays, and nothing of it can be read."""
        self.end_client()
        _run("umount", "--lazy", self.rdonly)
        connection = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={connection},rootmode=40000,user_id=0,group_id=0"
        argv = ["mount", "-i", "-t", "fuse", "-o", options, "cvmfs2", str(self.rdonly)]
        subprocess.run(argv, check=True, pass_fds=(connection,))
        os.close(connection)

    def drop(self) -> None:
        """Unmount everything and drop what has been changed."""
        self.unmount()
        for directory in (self.upper, self._work):
            shutil.rmtree(directory)
            directory.mkdir()

    def close(self) -> None:
        """End the transaction."""
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
        return any(self._is_writer(process) for process in Path("/proc").glob("[0-9]*"))

    def _is_writer(self, process: Path) -> bool:
        with contextlib.suppress(OSError):  # it has ended
            for number in os.listdir(process / "fd"):
                with contextlib.suppress(OSError):  # it has been closed
                    target = os.readlink(process / "fd" / number)
                    if target.startswith(f"{self.union}/") and _is_writable(process / "fdinfo" / number):
                        return True
        return False


def _is_writable(described: Path) -> bool:
    """Whether a file is open for writing, by what /proc says of its descriptor."""
    words = described.read_text().split()
    return int(words[words.index("flags:") + 1], 8) & os.O_ACCMODE != os.O_RDONLY


def _run(*argv: str | Path) -> None:
    subprocess.run([str(argument) for argument in argv], check=True)
