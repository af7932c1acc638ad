"""What stands for the image `postgres`, which cannot be had here: Debian's PostgreSQL of this machine, under its name.

It does what is used of the image: makes a database for a user whose password is in a file, and listens to everybody.
"""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from harness.engine import Engine

__all__ = ["build_database_image"]

_VERSIONS: Final = Path("/usr/lib/postgresql")
_PROGRAMS: Final = ("initdb", "pg_isready", "postgres")
_BUILD: Final = """\
FROM cvmfs-thin/seaweedfs AS tools
FROM scratch
COPY --from=tools /bin/busybox /bin/busybox
COPY --from=tools /bin/busybox /bin/sh
COPY root /
COPY --chown=999:999 data /var/lib/postgresql/data
ENV PATH={programs}:/bin
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/entrypoint"]
"""
_START: Final = """\
#!/bin/sh
set -eu
if [ ! -e "$PGDATA/PG_VERSION" ]; then
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 \\
        --encoding=UTF8 --no-locale --no-sync
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB;" | postgres --single -D "$PGDATA" postgres
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/run/postgresql -c fsync=off
"""
_USERS: Final = "root:x:0:0::/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"


async def build_database_image(engine: Engine, name: str, directory: Path) -> None:
    """Build the image on an engine that has SeaweedFS' image of the compose stack.

    Parameters
    ----------
    engine
        The engine.
    name
        What the image is called.
    directory
        Empty directory for what goes into it.
    """
    await asyncio.to_thread(_collect, directory)
    await engine.docker("build", "--quiet", "--tag", name, directory)


def _collect(directory: Path) -> None:
    (programs,) = sorted(_VERSIONS.glob("*/bin"))[-1:]
    root = directory / "root"
    parts = [programs / name for name in _PROGRAMS]
    modules = programs.parent / "lib"
    parts += [path for path in modules.glob("*.so") if not path.name.startswith("llvmjit")]
    for path in {*parts, *_libraries(parts)}:
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    share = Path("/usr/share/postgresql") / programs.parent.name
    shutil.copytree(share, root / share.relative_to("/"), symlinks=False)
    (root / "etc").mkdir()
    (root / "etc" / "passwd").write_text(_USERS)
    (root / "bin").mkdir(exist_ok=True)
    start = root / "bin" / "entrypoint"
    start.write_text(_START)
    start.chmod(0o755)
    (directory / "data").mkdir()
    (directory / "Dockerfile").write_text(_BUILD.format(programs=programs))


def _libraries(programs: list[Path]) -> set[Path]:
    """Return what the dynamic linker loads for programs, itself included."""
    said = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return {Path(name) for name in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE)}
