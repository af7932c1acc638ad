"""The stand-in for `cvmfs_server` as Debian packages, for images that are built with the real ones.

They want of the machine what the real ones want (CernVM-FS 2.12, packaging/debian and cvmfs/server/*.sh): a systemd to
be installed, an Apache that runs, a client, capabilities of a program, and the storage at `http://localhost/cvmfs`.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["build_packages"]

_TESTS: Final = Path(__file__).parents[1]
_HOME: Final = Path("usr/share/cvmfs-standin")

_CONTROL: Final = """\
Package: {name}
Version: 2.12.0
Architecture: all
Maintainer: the tests
{fields}Description: stand-in for CernVM-FS
"""

_PROGRAM: Final = f"""\
#!/bin/sh
set -e
die() {{ echo "$1" >&2; exit 1; }}
for name; do :; done
case $1 in
mkfs)
    # Without -p it configures the web server.
    case " $* " in *" -p "*) ;; *) die "Apache cannot be configured" ;; esac
    [ -x /usr/bin/cvmfs2 ] || die "cvmfs client missing"
    setcap -v cap_dac_read_search,cap_sys_admin+p /usr/bin/cvmfs_swissknife >/dev/null 2>&1 ||
        setcap cap_dac_read_search,cap_sys_admin+p /usr/bin/cvmfs_swissknife ||
        die "Need CAP_SYS_ADMIN for cvmfs_swissknife"
    [ ! -f /bin/systemctl ] && service apache2 status >/dev/null || die "Apache must be installed and running"
    for module in headers expires; do
        apache2ctl -M 2>/dev/null | grep -q $module || a2enmod $module >/dev/null || die "cannot enable $module"
    done
    # The real program keeps a repository's settings there.
    mkdir -p "/etc/cvmfs/repositories.d/$name" "/srv/cvmfs/$name"
    echo "CVMFS_REPOSITORY_NAME=$name" >"/etc/cvmfs/repositories.d/$name/server.conf"
    echo "$name $name" >>/etc/fstab
    echo C0 >"/srv/cvmfs/$name/.cvmfspublished" ;;
esac
case $1 in
mkfs | mount | transaction | publish | abort)
    python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=20)' \
        "http://localhost/cvmfs/$name/.cvmfspublished" || die "Repository unavailable under http://localhost/cvmfs/$name"
    grep -q "^$name " /etc/fstab || die "/var/spool/cvmfs/$name/rdonly is not in /etc/fstab" ;;
esac
PYTHONPATH=/{_HOME} CVMFS_STANDIN=/{_HOME}/root exec python3 -m tests.support.cvmfs_server "$@"
"""

_POSTINST: Final = """\
#!/bin/sh
set -e
systemctl start cvmfs-reload
"""

_PLACES: Final = {
    "mount": "/cvmfs",
    "spool": "/var/spool/cvmfs",
    "storage": "/srv/cvmfs",
    "control": "/var/spool/cvmfs/.control",
    "configuration": "/etc/cvmfs/repositories.d",
}
"""Where the real program has what the stand-in has below one directory."""


def build_packages(directory: Path, url: str) -> str:
    """Build the packages and their index.

    Parameters
    ----------
    directory
        Where they are put.
    url
        Where the directory will be found.

    Returns
    -------
    str
        Name of the package that makes the others known to apt.
    """
    client = directory / "cvmfs"
    _file(client / "usr" / "bin" / "cvmfs2", "#!/bin/sh\n", mode=0o755)
    _file(client / "DEBIAN" / "postinst", _POSTINST, mode=0o755)
    index = _build(client, "")
    index += _build(_server(directory / "cvmfs-server"), "Depends: python3, mount, libcap2-bin\nRecommends: apache2\n")
    (directory / "Packages").write_text(index)
    release = directory / "cvmfs-release"
    _file(release / "etc" / "apt" / "sources.list.d" / "cernvm.list", f"deb [trusted=yes] {url} ./\n")
    _build(release, "")
    return "cvmfs-release.deb"


def _server(tree: Path) -> Path:
    root = tree / _HOME / "root"
    root.mkdir(parents=True)
    for name, place in _PLACES.items():
        (root / name).symlink_to(place)
    support = tree / _HOME / "tests" / "support"
    shutil.copytree(_TESTS / "support" / "cvmfs_server", support / "cvmfs_server")
    for package in (support, support.parent):
        (package / "__init__.py").touch()
    _file(tree / "usr" / "bin" / "cvmfs_server", _PROGRAM, mode=0o755)
    _file(tree / "usr" / "bin" / "cvmfs_swissknife", "#!/bin/sh\n", mode=0o755)
    return tree


def _file(path: Path, content: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def _build(tree: Path, fields: str) -> str:
    """Build a package of a tree, beside it, and return its entry of the index."""
    control = _CONTROL.format(name=tree.name, fields=fields)
    _file(tree / "DEBIAN" / "control", control)
    package = tree.with_suffix(".deb")
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)], check=True, capture_output=True
    )
    content = package.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{control}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {digest}\n\n"
