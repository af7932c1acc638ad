"""Flat images run: as another user, in a namespace of that user's, from the tree that a repository shows."""

import asyncio
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from services.common.archive.model import LayerArchive
from services.common.image_outputs import FlatOutput, ImageOutputs
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.interface import Repository
from services.repository.native.trust.keyring import KeyFiles
from services.repository.public_names import flat_home
from tests.support.cvmfs_client import ClientView
from tests.support.directory_killed import opened_directory
from tests.support.images import change, image_of_layers
from tests.support.mounts import mount, unmount_all_below
from tests.support.native import NATIVE_NAME, NativeSite, tar_archive
from tests.support.tars import archive, member

SHELLS: Final = {"busybox": b"busybox", "dash": b"dash", "bash": b"bash"}
USER: Final = 1000
VALUE: Final = 'it\'s "$(id)" `id` \\ $HOME\n'
COMMON: Final = ("script", "app", "shell", "directory", "name")
"""Names of variables such as scripts have."""
MOUNT_POINTS: Final = ("root", "home", "sys", "tmp", "var/tmp", ".singularity.d/libs")
PRINT: Final = ["print", "%s|"]


def _base(directory: Path) -> LayerArchive:
    """Make a layer of shells, and of the libraries that they need."""
    programs = [Path("/bin", name) for name in SHELLS]
    linked = subprocess.run(["ldd", *map(str, programs)], check=True, capture_output=True, text=True).stdout
    libraries = {Path(path) for path in re.findall(r"(/\S+) \(0x", linked)}
    files = [
        member(str(path).lstrip("/").encode(), path.read_bytes(), mode=0o755)
        for path in sorted({*programs, *libraries})
    ]
    tools = [member(f"opt/{name}".encode(), typeflag=b"2", link=b"../bin/busybox") for name in ("printf", "env", "cat")]
    tools.append(member(b"opt/print", b'#!/bin/busybox sh\nprintf "$@"\n', mode=0o755))
    return tar_archive(directory, archive(*files, *tools, member(b"etc/shadow", b"secret", mode=0)))


def _image(name: str, base: LayerArchive, directory: Path, *, others_read: bool) -> tuple[LayerArchive, ImageDocuments]:
    """Make an image whose /bin/sh is one of the shells."""
    top = tar_archive(directory, archive(member(b"bin/sh", typeflag=b"2", link=SHELLS[name])))
    run = {
        "Env": ["PATH=/opt", f"VALUE={VALUE}", *(f"{name}=own" for name in COMMON)],
        "Entrypoint": [*PRINT, VALUE],
        "Cmd": ["a", "", "$(id)"],
    }
    outputs = ImageOutputs(flat=FlatOutput(others_read=others_read))
    return top, image_of_layers(f"quay.io/ns/{name}:v1", ("amd64", [base, top]), outputs=outputs, config=run)


async def _publish(repository: Repository, directory: Path) -> Mapping[str, str]:
    base = _base(directory)
    made = {name: _image(name, base, directory, others_read=name != "bash") for name in SHELLS}
    await change(
        repository, layers=[base, *(top for top, _ in made.values())], put=[image for _, image in made.values()]
    )
    return {name: flat_home(platform_images(image)[0].config_digest) for name, (_, image) in made.items()}


async def _in_directory(directory: Path) -> Mapping[str, Path]:
    root = directory / "shown"
    with ThreadPoolExecutor(2) as threads:
        async with opened_directory(root, threads) as repository:
            await repository.recover(())
            flats = await _publish(repository, directory)
    return {name: root / flat for name, flat in flats.items()}


async def _in_native(directory: Path) -> Mapping[str, Path]:
    keys = KeyFiles(directory / "keys", NATIVE_NAME)
    keys.complete(now=datetime(2026, 11, 24, tzinfo=UTC))
    site = NativeSite(root=directory / "repository", state=directory / "state", keys=keys)
    site.create()
    async with site.opened() as repository:
        flats = await _publish(repository, directory)
    with site.reader() as reader:
        ClientView(reader, directory / "shown").update()
    return {name: directory / "shown" / flat for name, flat in flats.items()}


@pytest.fixture(scope="module", params=[_in_directory, _in_native], ids=["directory", "native"])
def flats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Path]]:
    """Flat images by their shells, in a repository that everybody can read."""
    directory = tmp_path_factory.mktemp("flats")
    found = asyncio.run(request.param(directory))
    public = Path("/run/flats")
    public.mkdir()
    mount("--bind", directory / "shown", public)
    mount("-o", "remount,bind,ro,nosuid", public)
    try:
        yield {name: public / flat.relative_to(directory / "shown") for name, flat in found.items()}
    finally:
        unmount_all_below(Path("/run"))
        public.rmdir()


def _run(flat: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command in a flat image as an unprivileged user without any mapped owner but that user."""
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    sandbox = ["bwrap", "--unshare-all", "--clearenv", "--ro-bind", str(flat), "/", "--dev", "/dev", "--proc", "/proc"]
    # What Apptainer mounts as well is there to be mounted on, since nobody can make it.
    sandbox += [part for point in MOUNT_POINTS for part in ("--tmpfs", f"/{point}")]
    sandbox += ["--bind", str(flat / "etc/resolv.conf"), "/etc/hosts", "--chdir", "/"]
    settings = [part for name, value in (environment or {}).items() for part in ("--setenv", name, value)]
    done = subprocess.run(
        [*user, *sandbox, *settings, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_gets_what_the_image_says(flats: Mapping[str, Path], shell: str) -> None:
    for program in ("/singularity", "/.run", "/.singularity.d/actions/run"):
        path = {"PATH": "/opt"} if program == "/singularity" else {}
        assert _run(flats[shell], [program], path) == f"{VALUE}|a||$(id)|"
    assert _run(flats[shell], ["/.run", "$(id)", "", "it's"]) == f"{VALUE}|$(id)||it's|"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_runs_in_the_images_environment(flats: Mapping[str, Path], shell: str) -> None:
    host = {"PATH": "/bin", "LD_LIBRARY_PATH": "/host"}
    lines = _run(flats[shell], ["/.exec", "env"], host)
    for line in (
        *(f"{name}=own\n" for name in COMMON),
        f"VALUE={VALUE}",
        "PATH=/opt\n",
        "LD_LIBRARY_PATH=/host:/.singularity.d/libs\n",
    ):
        assert line in lines
    assert _run(flats[shell], ["/.exec", "printf", "%s|", VALUE, ""], {"VALUE": "the host's"}) == f"{VALUE}||"
    assert "VALUE=the host's\n" in _run(flats[shell], ["/.exec", "env"], {"VALUE": "the host's"})


@pytest.mark.parametrize("shell", SHELLS)
def test_there_is_a_shell_and_a_test(flats: Mapping[str, Path], shell: str) -> None:
    assert _run(flats[shell], ["/.shell", "-c", 'printf "%s|" "$VALUE" "$SHELL"']) == f"{VALUE}|/bin/bash|"
    chosen = {"APPTAINER_SHELL": "/bin/dash"}
    assert _run(flats[shell], ["/.shell", "-c", 'printf "%s" "$0"'], chosen) == "/bin/dash"
    assert _run(flats[shell], ["/.test"]) == "This image has no test.\n"


def test_others_read_all_of_it_only_where_that_is_wanted(flats: Mapping[str, Path]) -> None:
    modes = {name: stat.S_IMODE((flat / "etc/shadow").stat().st_mode) for name, flat in flats.items()}
    assert modes == {"busybox": 0o404, "dash": 0o404, "bash": 0o400}
    assert _run(flats["dash"], ["/.exec", "cat", "/etc/shadow"]) == "secret"
