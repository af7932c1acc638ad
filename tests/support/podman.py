"""podman with a root of its own, which reads its images from stores of a repository."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harness.commands import Completed, run
from services.common.repository_name import RepositoryName
from tests.support.mounts import mount, unmount_all_below

__all__ = ["Podman", "seen_by_clients", "system_tree"]

_PROGRAMS: Final = ("busybox", "sh", "cat", "ls", "stat", "touch", "rm", "id", "echo")


class Podman:
    """One user's podman: storage, configuration and runtime directory below one directory.

    Parameters
    ----------
    directory
        What does not exist yet.
    stores
        Additional image stores.
    command
        What runs it.
    storage
        More for `storage.conf`.
    environment
        More variables.
    """

    def __init__(
        self,
        directory: Path,
        stores: Sequence[Path],
        *,
        command: Sequence[str] = ("podman",),
        storage: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root = directory / "root"
        self.root.mkdir(parents=True)
        listed = ", ".join(json.dumps(str(store)) for store in stores)
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.root}"\nrunroot = "{directory}/run"\n'
            f"[storage.options]\nadditionalimagestores = [{listed}]\n{storage}"
        )
        (directory / "containers.conf").write_text(
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n'
            '[containers]\nnetns = "none"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        )
        (directory / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self._command = command
        self.environment = {
            **(environment or {}),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "TMPDIR": str(directory),
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }
        """What makes a shell's podman this one."""

    async def __call__(
        self,
        *arguments: str | Path,
        accept: Sequence[int] = (0,),
        input: bytes | None = None,  # noqa: A002 - the name that `run` uses
    ) -> Completed:
        """Run podman."""
        return await run(*self._command, *arguments, env=self.environment, accept=accept, input=input)

    async def inspect(self, image: str) -> dict[str, Any]:
        """Return what `podman image inspect` says."""
        (found,) = json.loads((await self("image", "inspect", image)).text)
        return dict(found)


@contextmanager
def seen_by_clients(root: Path, name: RepositoryName) -> Iterator[Path]:
    """Show a repository below /cvmfs, where nothing can be written, as a client of it would; give its place."""
    cvmfs = Path("/cvmfs")
    made = not cvmfs.exists()
    cvmfs.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "tmpfs", cvmfs)
    try:
        seen = cvmfs / name
        seen.mkdir()
        mount("--bind", root, seen)
        mount("-o", "remount,ro,bind", seen)
        yield seen
    finally:
        unmount_all_below(cvmfs)
        subprocess.run(["umount", "--lazy", cvmfs], check=True)
        if made:
            cvmfs.rmdir()


def system_tree(tree: Path) -> None:
    """Make a root file system in which some programs of busybox run."""
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "run", "var/tmp"):
        (tree / name).mkdir(parents=True)
    busybox = Path("/bin/busybox").resolve()
    libraries = subprocess.run(["ldd", busybox], check=True, capture_output=True, text=True).stdout.split()
    for source in {str(busybox), *(word for word in libraries if word.startswith("/"))}:
        target = tree / source.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(source).read_bytes())
        target.chmod(0o755)
    for name in _PROGRAMS:
        if not (tree / "bin" / name).exists():
            os.symlink(str(busybox), tree / "bin" / name)
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
