"""The stand-in for `cvmfs_server` as a Debian package, for images that are built with the real one."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["build_package"]

_TESTS: Final = Path(__file__).parents[1]
_HOME: Final = Path("usr/share/cvmfs-standin")

_CONTROL: Final = """\
Package: cvmfs-server
Version: 2.12.0
Architecture: all
Maintainer: the tests
Depends: python3, mount
Description: stand-in for the CernVM-FS server tools
"""

_PROGRAM: Final = f"""\
#!/bin/sh
# The real program keeps a repository's settings there.
for name; do :; done
if [ "$1" = mkfs ]; then
    mkdir -p "/etc/cvmfs/repositories.d/$name"
    echo "CVMFS_REPOSITORY_NAME=$name" >"/etc/cvmfs/repositories.d/$name/server.conf"
fi
PYTHONPATH=/{_HOME} CVMFS_STANDIN=/{_HOME}/root exec python3 -m tests.support.cvmfs_server "$@"
"""

_PLACES: Final = {
    "mount": "/cvmfs",
    "spool": "/var/spool/cvmfs",
    "storage": "/srv/cvmfs",
    "control": "/var/spool/cvmfs/.control",
}
"""Where the real program has what the stand-in has below one directory."""


def build_package(directory: Path) -> Path:
    """Build the package in a directory that exists, and return its file."""
    tree = directory / "package"
    root = tree / _HOME / "root"
    root.mkdir(parents=True)
    for name, place in _PLACES.items():
        (root / name).symlink_to(place)
    support = tree / _HOME / "tests" / "support"
    shutil.copytree(_TESTS / "support" / "cvmfs_server", support / "cvmfs_server")
    shutil.copy(_TESTS / "support" / "mounts.py", support)
    for package in (support, support.parent):
        (package / "__init__.py").touch()
    program = tree / "usr" / "bin" / "cvmfs_server"
    program.parent.mkdir()
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(_CONTROL)
    package = directory / "cvmfs-server_2.12.0_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)], check=True, capture_output=True
    )
    return package
