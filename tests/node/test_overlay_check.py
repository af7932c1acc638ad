"""What can be known of a home directory by trying a union in it."""

import os
import subprocess
from pathlib import Path

import pytest

from services.node.errors import MountError
from services.node.overlay_check import OverlayFeatures, check_overlay
from tests.support.mounts import ext4, full_disk, mount, unmount_all_below

pytestmark = pytest.mark.usefixtures("mounting")


@pytest.mark.parametrize("uuid", [True, False])
def test_whether_files_can_be_followed_depends_on_the_file_systems_uuid(tmp_path: Path, *, uuid: bool) -> None:
    ext4(tmp_path / "home", uuid=uuid)
    assert check_overlay(tmp_path / "home") == OverlayFeatures(xino=True, origins=uuid)
    assert os.listdir(tmp_path / "home") == ["lost+found"]
    subprocess.run(["umount", str(tmp_path / "home")], check=True)


def test_a_full_disk_is_not_tried(tmp_path: Path) -> None:
    with full_disk(tmp_path / "home") as fill:
        fill(0)
        assert check_overlay(tmp_path / "home") == OverlayFeatures(xino=True, origins=None)


def test_a_home_on_an_overlay_is_refused(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "home"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    mount("-t", "overlay", "-o", options, "overlay", tmp_path / "home")
    try:
        with pytest.raises(MountError, match=r"home cannot hold the writable layers of containers.*ext4 or xfs"):
            check_overlay(tmp_path / "home")
    finally:
        unmount_all_below(tmp_path)


def test_what_a_kill_has_left_mounted_goes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    merged = home / ".check-killed/merged"
    merged.mkdir(parents=True)
    mount("-t", "tmpfs", "tmpfs", merged)
    check_overlay(home)
    assert os.listdir(home) == []
