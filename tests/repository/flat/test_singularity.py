"""The scripts of a flat image under the shells that images have: nothing in them is executed or mangled."""

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.repository.flat.configuration import RunConfiguration, read_configuration
from services.repository.flat.entries import GeneratedEntry, GeneratedKind
from services.repository.flat.singularity import generated_entries

SHELLS: Final = {"dash": ["/bin/dash"], "bash": ["/bin/bash", "--posix"], "busybox": ["/bin/busybox", "sh"]}
HOSTILE: Final = [
    "",
    " ",
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "a'b\"c",
    "it's",
    'hi "there" $HOME \\$x',
    "$(touch executed)",
    "`touch executed`",
    "'; touch executed; '",
    "'$(touch executed)'",
    '"$(touch executed)"',
    "${IFS}",
    "$((1+1))",
    "a\nb\n",
    "\n",
    "\t\r\v\f",
    "a;b&c|d>executed<f",
    "*",
    "~",
    "!!",
    "#",
    "-n",
    "--",
    "\\n\\0\\c",
    "%s%d",
    "\x01\x02\x7f\x81\x88",
    "\u0081\u0088\u00e9\U0001f600",
    "a=b",
    "$'a'",
    "x" * 70_000,
]
texts = st.one_of(
    st.sampled_from(HOSTILE[:-1]),
    st.text(alphabet="'\"\\$`!*?~#;&|<>(){}[]=%-\n\t a", max_size=12),
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
few = settings(max_examples=12)


def _configuration(
    *, env: Sequence[str] = (), entrypoint: Sequence[str] = (), cmd: Sequence[str] = ()
) -> RunConfiguration:
    # By way of JSON, as it comes from a registry.
    document = {"config": {"Env": list(env), "Entrypoint": list(entrypoint), "Cmd": list(cmd)}}
    return read_configuration(json.dumps(document, ensure_ascii=False).encode())


def _file(configuration: RunConfiguration, path: str) -> bytes:
    return next(
        entry.data for entry in generated_entries(configuration) if entry.path == f".singularity.d/{path}".encode()
    )


def _run(command: Sequence[str], directory: str, environment: Mapping[str, str] | None = None) -> bytes:
    done = subprocess.run(command, cwd=directory, env=environment or {}, capture_output=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not Path(directory, "executed").exists()
    return done.stdout


def _environment_of(configuration: RunConfiguration, host: Mapping[str, str], shell: str) -> dict[str, str]:
    """Return what a program sees that is run in the image's environment."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "script").write_bytes(_file(configuration, "env/10-docker2singularity.sh"))
        output = _run([*SHELLS[shell], "-c", ". ./script; exec /usr/bin/env -0"], directory, host)
        return dict(variable.decode().split("=", 1) for variable in output.split(b"\0")[:-1])


def _arguments_of(configuration: RunConfiguration, arguments: Sequence[str], shell: str) -> list[str]:
    """Return the arguments that `printf` gets, which is the image's command."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "script").write_bytes(_file(configuration, "runscript"))
        output = _run([*SHELLS[shell], "script", *arguments], directory)
        return [argument.decode() for argument in output.split(b"\0")[:-1]]


PRINT: Final = ("/usr/bin/printf", "%s\\0")


@pytest.mark.parametrize("shell", SHELLS)
@example(HOSTILE)
@given(values=st.lists(texts, min_size=1, max_size=12))
@few
def test_every_value_of_a_variable_arrives(shell: str, values: list[str]) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(values)} | {"PATH": "/it's $(touch executed)"}
    configuration = _configuration(env=[f"{name}={value}" for name, value in wanted.items()])
    found = _environment_of(configuration, {"PATH": "/usr/bin:/bin"}, shell)
    assert {name: value for name, value in found.items() if name in wanted} == wanted


@pytest.mark.parametrize("shell", SHELLS)
@example(HOSTILE, HOSTILE, HOSTILE)
@example([], [], [])
@given(
    entrypoint=st.lists(texts, max_size=4), cmd=st.lists(texts, max_size=4), given_arguments=st.lists(texts, max_size=4)
)
@few
def test_every_argument_arrives(shell: str, entrypoint: list[str], cmd: list[str], given_arguments: list[str]) -> None:
    configuration = _configuration(entrypoint=[*PRINT, "|", *entrypoint], cmd=cmd)
    assert _arguments_of(configuration, given_arguments, shell) == ["|", *entrypoint, *(given_arguments or cmd)]
    configuration = _configuration(cmd=[*PRINT, "|", *cmd])
    assert _arguments_of(configuration, [], shell) == ["|", *cmd]
    assert _arguments_of(configuration, [*PRINT, "|", *given_arguments], shell) == ["|", *given_arguments]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_variable_of_the_shells_own_may_be_wanted_of_the_host(shell: str) -> None:
    names = ["UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "IFS", "OPTIND", "LINENO", "_", "OTHER"]
    configuration = _configuration(env=[*names, *(f"{name}=x y" for name in ("OPTARG", "REPLY", "GROUPS")), "V=v"])
    found = _environment_of(configuration, {"OTHER": "the host's"}, shell)
    assert (found["V"], found["OTHER"]) == ("v", "the host's")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_command_may_have_any_name(shell: str, tmp_path: Path) -> None:
    program = tmp_path / 'it\'s $(touch executed) \\ "x"\n'
    program.symlink_to("/usr/bin/printf")
    assert _arguments_of(_configuration(entrypoint=[str(program), "%s\\0", "a"]), [], shell) == ["a"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_that_looks_like_an_option_is_no_option_of_the_shell(shell: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(_file(_configuration(entrypoint=["-c", "/bin/true"]), "runscript"))
    done = subprocess.run([*SHELLS[shell], "script"], cwd=tmp_path, env={}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (127, b"-c: no such command\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_an_image_without_a_command_runs_a_shell(shell: str, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(_file(_configuration(), "runscript"))
    done = subprocess.run(
        [*SHELLS[shell], "script"], cwd=tmp_path, input=b"echo $((6 * 7))", capture_output=True, check=True
    )
    assert done.stdout == b"42\n"
    assert _arguments_of(_configuration(), [*PRINT, "a"], shell) == ["a"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_hosts_values_win_but_for_the_path(shell: str) -> None:
    configuration = _configuration(env=["PATH=/image", "A=image", "B=image", "C=image", "D", "E", "UID=1000", "PPID=1"])
    host = {"PATH": "/host", "A": "host", "B": "", "D": "host"}
    found = _environment_of(configuration, host, shell)
    assert {name: found[name] for name in ("PATH", *"ABCDE")} == {
        "PATH": "/image",
        "A": "host",
        "B": "image",
        "C": "image",
        "D": "host",
        "E": "",
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_run_where_unset_variables_and_failures_end_the_shell(shell: str, tmp_path: Path) -> None:
    configuration = _configuration(env=["A=a", "B", "PATH=/usr/bin"], cmd=["/bin/true"])
    for entry in generated_entries(configuration):
        if b"/env/" in entry.path:
            (tmp_path / Path(entry.path.decode()).name).write_bytes(entry.data)
    scripts = "; ".join(f". ./{script.name}" for script in sorted(tmp_path.iterdir()))
    output = _run([*SHELLS[shell], "-euc", f"{scripts}; exec /usr/bin/env -0"], str(tmp_path))
    found = dict(variable.decode().split("=", 1) for variable in output.split(b"\0")[:-1])
    assert found["LD_LIBRARY_PATH"] == "/.singularity.d/libs"
    assert found["PS1"]
    assert (found["A"], found["B"], found["PATH"]) == ("a", "", "/usr/bin")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_is_one_for_every_shell(shell: str, tmp_path: Path) -> None:
    scripts = [
        entry for entry in generated_entries(_configuration(env=HOSTILE)) if entry.data.startswith(b"#!/bin/sh\n")
    ]
    assert len(scripts) == 13
    for entry in scripts:
        (tmp_path / "script").write_bytes(entry.data)
        _run([*SHELLS[shell], "-n", "script"], str(tmp_path))


def test_everything_that_apptainer_looks_for_is_there() -> None:
    configuration = dataclasses.replace(_configuration(), labels={"b": "'\u00e9", "a": "x"}, created=42)
    entries = generated_entries(configuration)
    paths = [entry.path.decode() for entry in entries]
    assert len(set(paths)) == len(paths)
    assert {entry.mtime for entry in entries} == {42}
    for entry in entries:
        parent = entry.path.decode().rpartition("/")[0]
        assert not parent or parent in paths[: paths.index(entry.path.decode())]

    def of(kind: GeneratedKind, *, only_if_missing: bool) -> dict[str, GeneratedEntry]:
        return {
            entry.path.decode(): entry
            for entry in entries
            if entry.kind is kind and entry.only_if_missing == only_if_missing
        }

    own = of(GeneratedKind.FILE, only_if_missing=False)
    assert {path.removeprefix(".singularity.d/"): entry.mode for path, entry in own.items()} == {
        **dict.fromkeys([f"actions/{name}" for name in ("exec", "run", "shell", "start", "test")], 0o755),
        **dict.fromkeys(
            [
                f"env/{name}.sh"
                for name in (
                    "01-base",
                    "10-docker2singularity",
                    "90-environment",
                    "95-apps",
                    "99-base",
                    "99-runtimevars",
                )
            ],
            0o755,
        ),
        "runscript": 0o755,
        "startscript": 0o755,
        "labels.json": 0o644,
    }
    assert json.loads(own[".singularity.d/labels.json"].data) == {"a": "x", "b": "'\u00e9"}
    directories = of(GeneratedKind.DIRECTORY, only_if_missing=False)
    assert directories.keys() == {f".singularity.d{inner}" for inner in ("", "/libs", "/actions", "/env")}
    assert of(GeneratedKind.DIRECTORY, only_if_missing=True).keys() == {
        *("dev", "proc", "root", "var", "var/tmp", "tmp", "etc", "sys", "home")
    }
    empty = of(GeneratedKind.FILE, only_if_missing=True)
    assert {path: (entry.data, entry.mode) for path, entry in empty.items()} == {
        "etc/hosts": (b"", 0o644),
        "etc/resolv.conf": (b"", 0o644),
    }
    links = of(GeneratedKind.SYMLINK, only_if_missing=True)
    assert {path: entry.data.decode() for path, entry in links.items()} == {
        "singularity": ".singularity.d/runscript",
        ".run": ".singularity.d/actions/run",
        ".exec": ".singularity.d/actions/exec",
        ".test": ".singularity.d/actions/test",
        ".shell": ".singularity.d/actions/shell",
        "environment": ".singularity.d/env/90-environment.sh",
    }
