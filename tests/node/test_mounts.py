"""The calls to the kernel: option strings and their limit, the mount table, unmounting."""

import os
from pathlib import Path

import pytest

from services.node.errors import MountError
from services.node.mounts import (
    OverlaySource,
    is_upper_in_use,
    mount_overlay,
    mount_table,
    numbered,
    remove_mount_point,
    unmount,
)
from tests.support.mounts import mount, mounts_below


def _option(source: OverlaySource, name: str) -> str:
    [value] = [part.partition("=")[2] for part in source.options().split(",") if part.startswith(f"{name}=")]
    return value


def test_layers_are_listed_top_first() -> None:
    source = OverlaySource(lowers=["l/TOP", "l/BASE"], upper="layers/c/diff", work="layers/c/work")
    assert _option(source, "lowerdir") == "l/TOP:l/BASE"
    assert _option(source, "upperdir") == "layers/c/diff"
    assert _option(source, "workdir") == "layers/c/work"


def test_a_union_without_upper_directory_names_none() -> None:
    options = OverlaySource(lowers=["a", "b"]).options()
    assert "upperdir" not in options
    assert "workdir" not in options
    assert "context" not in options


def test_what_a_layer_could_point_elsewhere_with_is_off() -> None:
    # Where the kernel has the features, which this one may not.
    options = OverlaySource(lowers=["a"], upper="b", work="c").options().split(",")
    for parameter, option in {"redirect_dir": "redirect_dir=nofollow", "metacopy": "metacopy=off"}.items():
        assert (option in options) == Path(f"/sys/module/overlay/parameters/{parameter}").exists()


def test_a_label_is_quoted_since_it_holds_commas() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"
    options = OverlaySource(lowers=["a"], upper="b", work="c", label=label).options()
    assert options.endswith(f',context="{label}"')


def test_more_layers_than_the_page_of_options_takes_are_refused_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "point").mkdir()
    lowers = [f"l/{number:010}" for number in range(400)]
    with pytest.raises(MountError, match=r"400 layers are more than one overlay mount takes.*flatten the image"):
        mount_overlay(OverlaySource(lowers=lowers, upper="u", work="w"), "point", directory=tmp_path)
    lowers = [str(number) for number in range(501)]
    with pytest.raises(MountError, match=r"501 layers.*the kernel's limit is 500\): flatten the image"):
        mount_overlay(OverlaySource(lowers=lowers, upper="u", work="w"), "point", directory=tmp_path)


@pytest.mark.usefixtures("mounting")
def test_five_hundred_layers_are_mounted_by_their_numbers(tmp_path: Path) -> None:
    """As many as the kernel stacks."""
    for name in ("upper", "work", "point", "scratch", "l"):
        (tmp_path / name).mkdir()
    lowers = [f"l/{number:064}" for number in range(500)]
    for lower in lowers:
        (tmp_path / lower).mkdir()
        (tmp_path / lower / "top").write_text(lower)
        (tmp_path / lower / f"of-{lower[2:]}").touch()
    source = OverlaySource(lowers=lowers, upper="upper", work="work")
    assert not source.fits
    with numbered(source, directory=tmp_path, scratch=tmp_path / "scratch") as (short, place):
        mount_overlay(short, str(tmp_path / "point"), directory=place)
    assert os.listdir(tmp_path / "scratch") == []
    assert len(os.listdir(tmp_path / "point")) == 501
    assert (tmp_path / "point/top").read_text() == lowers[0]
    (tmp_path / "point/new").touch()
    assert os.listdir(tmp_path / "upper") == ["new"]
    assert unmount(tmp_path / "point")


@pytest.mark.usefixtures("mounting")
def test_the_limit_is_the_kernels_own(tmp_path: Path) -> None:
    """Options of 4,095 bytes are mounted, one byte more is refused."""
    for name in ("upper", "work", "point"):
        (tmp_path / name).mkdir()
    empty = OverlaySource(lowers=[], upper="upper", work="work")
    room = 4095 - len(empty.options())
    # Paths of 19 bytes and a colon, the last one as long as is left.
    names = [f"{number:019}" for number in range(room // 20 - 1)]
    names.append("x" * (room - 20 * len(names)))
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").touch()
    largest = OverlaySource(lowers=names, upper="upper", work="work")
    assert len(largest.options()) == 4095
    mount_overlay(largest, "point", directory=tmp_path)
    assert len(os.listdir(tmp_path / "point")) == len(names)
    assert unmount(tmp_path / "point")
    (tmp_path / (names[-1] + "x")).mkdir()
    too_large = OverlaySource(lowers=[*names[:-1], names[-1] + "x"], upper="upper", work="work")
    with pytest.raises(MountError, match=r"4096 bytes of options, the kernel's limit is 4095"):
        mount_overlay(too_large, "point", directory=tmp_path)


@pytest.mark.usefixtures("mounting")
def test_a_refusal_names_the_union_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "point").mkdir()
    source = OverlaySource(lowers=["missing"], upper="upper", work="work")
    with pytest.raises(
        MountError, match=r"overlay point of 1 layers: .*a layer directory is missing.*lowerdir=missing"
    ):
        mount_overlay(source, "point", directory=tmp_path)


@pytest.mark.usefixtures("mounting")
def test_mounting_by_relative_path_leaves_the_process_where_it_is(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "point"):
        (tmp_path / name).mkdir()
    before = Path.cwd()
    source = OverlaySource(lowers=["lower"], upper="upper", work="work")
    mount_overlay(source, "point", directory=tmp_path)
    assert Path.cwd() == before
    [found] = [entry for entry in mount_table() if entry.point == str(tmp_path / "point")]
    assert found.kind == "overlay"
    assert "lowerdir=lower" in found.options
    unmount(tmp_path / "point")


@pytest.mark.usefixtures("mounting")
@pytest.mark.parametrize(
    "name",
    [b"with space", b"tab\there", b"new\nline", b"back\\slash", b"\\040", b"#hash", b"\xff\xfe", "größe".encode(),
     b"a - b", b"comma,colon:"],
)  # fmt: skip
def test_the_mount_table_gives_every_name_as_it_is(tmp_path: Path, name: bytes) -> None:
    point = tmp_path / os.fsdecode(name)
    point.mkdir()
    mount("-t", "tmpfs", os.fsdecode(name), point)
    [found] = [entry for entry in mount_table() if entry.point.startswith(f"{tmp_path}/")]
    assert found.point == str(point)
    assert (found.kind, found.source) == ("tmpfs", os.fsdecode(name))
    assert unmount(found.point)


@pytest.mark.usefixtures("mounting")
def test_an_upper_directory_in_use_is_known_and_left_as_it_is(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged", "point"):
        (tmp_path / name).mkdir()
    assert not is_upper_in_use("upper", "point", directory=tmp_path)
    assert os.listxattr(tmp_path / "upper") == []
    mount_overlay(OverlaySource(lowers=["lower"], upper="upper", work="work"), "merged", directory=tmp_path)
    assert is_upper_in_use("upper", "point", directory=tmp_path)
    assert not is_upper_in_use("lower", "point", directory=tmp_path)
    assert mounts_below(tmp_path) == [str(tmp_path / "merged")]
    (tmp_path / "merged" / "file").touch()
    assert unmount(tmp_path / "merged")
    assert not is_upper_in_use("upper", "point", directory=tmp_path)
    assert [path.name for path in (tmp_path / "upper").iterdir()] == ["file"]


@pytest.mark.usefixtures("mounting")
@pytest.mark.parametrize(("propagation", "receives"), [("shared", True), ("slave", True), ("private", False)])
def test_the_mount_table_says_what_shows_later_mounts(tmp_path: Path, propagation: str, receives: bool) -> None:  # noqa: FBT001 - a parameter of the test
    point = tmp_path / "point"
    point.mkdir()
    mount("--bind", point, point)
    mount(f"--make-{propagation}", point)
    [found] = [entry for entry in mount_table() if entry.point == str(point)]
    assert found.receives is receives
    assert unmount(point)


@pytest.mark.usefixtures("mounting")
def test_unmounting_takes_off_every_mount_of_a_stack_and_can_be_repeated(tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    for _ in range(3):
        mount("-t", "tmpfs", "tmpfs", point)
    with (point / "busy").open("w"):
        assert unmount(point)
    assert mounts_below(tmp_path) == []
    assert not unmount(point)
    assert not unmount(tmp_path / "missing")


@pytest.mark.usefixtures("mounting")
def test_unmounting_follows_no_link(tmp_path: Path) -> None:
    point, link = tmp_path / "point", tmp_path / "link"
    point.mkdir()
    link.symlink_to(point)
    mount("-t", "tmpfs", "tmpfs", point)
    assert not unmount(link)
    assert mounts_below(tmp_path) == [str(point)]
    assert unmount(point)


@pytest.mark.usefixtures("mounting")
def test_a_mount_point_goes_with_all_that_is_mounted_on_it(tmp_path: Path) -> None:
    point = tmp_path / "point"
    point.mkdir()
    for _ in range(2):
        mount("-t", "tmpfs", "tmpfs", point)
    for _ in range(2):
        remove_mount_point(point)
        assert not point.exists()
    assert mounts_below(tmp_path) == []


def test_a_mount_point_that_holds_files_is_kept(tmp_path: Path) -> None:
    (tmp_path / "point/file").mkdir(parents=True)
    with pytest.raises(OSError, match="Directory not empty"):
        remove_mount_point(tmp_path / "point")


@pytest.mark.usefixtures("mounting")
def test_a_mount_that_lands_meanwhile_is_taken_off_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = tmp_path / "point"
    point.mkdir()
    landings = 1

    def land_after(place: Path) -> bool:
        nonlocal landings
        found = unmount(place)
        if landings > 0:
            landings -= 1
            mount("-t", "tmpfs", "tmpfs", place)
        return found

    monkeypatch.setattr("services.node.mounts.unmount", land_after)
    remove_mount_point(point)
    assert not point.exists()
    point.mkdir()
    landings = 100
    with pytest.raises(MountError, match="is mounted on again and again"):
        remove_mount_point(point)
    assert unmount(point)
