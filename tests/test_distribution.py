"""What a release consists of: it installs where nothing of the project is, and runs."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

_ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_NAME = f"cvmfs_thin_images-{_PROJECT['version']}"
_MODULES = ("graphdriver", "snapshotter", "publisher", "setup")


def _run(*command: str | Path, cwd: Path) -> str:
    # What one program has compiled is there for the next one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ("Dockerfile", r"^ARG VERSION=(.*)$"),
        ("docs/kubernetes.md", r"/cvmfs-thin/[a-z-]+:([\w.]+)"),
        ("deploy/kubernetes/*/overlays/*/kustomization.yaml", r'^ +newTag: "?([^"\n]+)'),
    ],
)
def test_the_version_is_the_same_everywhere(files: str, said: str) -> None:
    versions = [re.findall(said, path.read_text(), re.MULTILINE) for path in _ROOT.glob(files)]
    assert {version for found in versions for version in found} == {_PROJECT["version"]}


def test_every_image_is_labelled() -> None:
    labels = re.findall(r"^LABEL (?:.*\\\n)*.*$", (_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert labels
    for label in labels:
        assert 'org.opencontainers.image.version="$VERSION"' in label
        assert 'org.opencontainers.image.revision="$REVISION"' in label


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("release")
    _run("make", "built-dist", f"DIST={directory}", cwd=_ROOT)
    return directory


@pytest.fixture(scope="module")
def environment(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that has the wheel, and of this one's packages all but the project."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False, symlinks=True)
    python = directory / "bin" / "python"
    wheel = release / f"{_NAME}-py3-none-any.whl"
    uv = Path(sys.executable).with_name("uv")
    _run(
        uv,
        "pip",
        "install",
        "--no-cache",
        "--offline",
        "--no-index",
        "--no-deps",
        "--python",
        python,
        wheel,
        cwd=release,
    )
    # Files *.pth in a directory that is named like this are not read, so that the project's own checkout stays away.
    packages = directory / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "locked.pth").write_text(sysconfig.get_path("purelib"))
    return directory


def test_the_wheel_has_every_file(release: Path) -> None:
    there = {
        str(path.relative_to(_ROOT))
        for path in (_ROOT / "services").rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert {Path(name).suffix for name in there} >= {".py", ".html", ".css", ".js", ".svg", ".proto"}
    with ZipFile(release / f"{_NAME}-py3-none-any.whl") as wheel:
        assert {name for name in wheel.namelist() if not name.startswith(f"{_NAME}.dist-info/")} == there


def test_the_source_archive_can_be_worked_with(release: Path) -> None:
    with tarfile.open(release / f"{_NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{_NAME}/") for name in archive.getnames()}
    assert names >= {"Makefile", "Dockerfile", "uv.lock", "LICENSE", "tests/test_distribution.py", "docs/SETTINGS.md"}
    assert {name.partition("/")[0] for name in names}.isdisjoint({".venv", ".cache", ".git", "dist", "site", "secrets"})


@pytest.mark.parametrize("command", [*_PROJECT["scripts"], *(f"-m services.{module}" for module in _MODULES)])
def test_every_program_starts(environment: Path, tmp_path: Path, command: str) -> None:
    program, *arguments = command.split() if command in _PROJECT["scripts"] else ["python", *command.split()]
    said = _run(environment / "bin" / program, *arguments, "--help", cwd=tmp_path)
    assert said.lower().startswith("usage: ")


def test_it_is_the_wheel_that_runs(environment: Path, tmp_path: Path) -> None:
    asked = "import services, importlib.metadata as m; print(services.__path__[0], m.version('cvmfs-thin-images'))"
    place, version = _run(environment / "bin" / "python", "-c", asked, cwd=tmp_path).split()
    assert Path(place).is_relative_to(environment)
    assert version == _PROJECT["version"]


def test_the_bill_of_materials_is_that_of_the_lock(release: Path) -> None:
    bill = json.loads((release / f"{_NAME}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", _PROJECT["version"])
    locked = {
        (package["name"], package.get("version"))
        for package in tomllib.loads((_ROOT / "uv.lock").read_text())["package"]
    }
    named = {(part["name"], part["version"]) for part in bill["components"]}
    assert named <= locked
    wanted = [
        *_PROJECT["dependencies"],
        *(item for extra in _PROJECT["optional-dependencies"].values() for item in extra),
    ]
    names = {name for name, _ in named}
    assert names >= {re.split(r"[<>=\[]", item)[0].replace(".", "-") for item in wanted}
    # What only tests, lint and the site need is not what a site runs.
    assert names.isdisjoint({"pytest", "mypy", "mkdocs", "hatchling"})
