"""The files that make a root file system an image of Apptainer: `.singularity.d`, and what leads to it.

They are those that Apptainer's own conversion of an image makes, so that whoever looks for them finds them; what they
do is written anew. Apptainer takes the environment and the command from them: scripts for the shell of the image, which
may be any. So a value is always between single quotes, in which no shell gives any character a meaning, and is never
evaluated again: nothing in it is executed, and the command gets exactly what the image says. (Apptainer's and DUCC's
scripts evaluate arguments by `eval`, and mangle quotes, dollars and back-ticks in the environment.)

The same configuration makes the same bytes, wherever and whenever.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Final

from services.repository.flat.configuration import RunConfiguration
from services.repository.flat.entries import GeneratedEntry, GeneratedKind

__all__ = ["generated_entries"]

_ROOT: Final = ".singularity.d"

# The scripts have no variables of their own: whatever it is called, the image may have one of the same name.
_SOURCE_ENVIRONMENT: Final = """\
source_each() {
    while [ $# -gt 0 ]; do
        if [ -f "$1" ]; then
            . "$1"
        fi
        shift
    done
}
source_each /.singularity.d/env/*.sh
"""

_APP: Final = "${APPTAINER_APPNAME:-${SINGULARITY_APPNAME:-}}"
_SHELL: Final = "${APPTAINER_SHELL:-${SINGULARITY_SHELL:-}}"

_ACTIONS: Final = {
    "exec": f"""\
#!/bin/sh
# Runs a command in the image's environment.
{_SOURCE_ENVIRONMENT}
exec "$@"
""",
    "run": f"""\
#!/bin/sh
# Runs what the image is for.
{_SOURCE_ENVIRONMENT}
if [ -n "{_APP}" ]; then
    exec "/scif/apps/{_APP}/scif/runscript" "$@"
fi
exec /.singularity.d/runscript "$@"
""",
    "shell": f"""\
#!/bin/sh
# Starts a shell in the image's environment.
{_SOURCE_ENVIRONMENT}
if [ -n "{_SHELL}" ] && [ -x "{_SHELL}" ]; then
    exec "{_SHELL}" "$@"
fi
if [ -x /bin/bash ]; then
    SHELL=/bin/bash
    export SHELL
    exec /bin/bash --norc "$@"
fi
SHELL=/bin/sh
export SHELL
exec /bin/sh "$@"
""",
    "start": f"""\
#!/bin/sh
# Starts an instance; process 1 waits for the signal.
kill -CONT 1
{_SOURCE_ENVIRONMENT}
exec /.singularity.d/startscript "$@"
""",
    "test": f"""\
#!/bin/sh
# Runs the image's own test, if it has one.
{_SOURCE_ENVIRONMENT}
if [ -n "{_APP}" ]; then
    exec "/scif/apps/{_APP}/scif/test" "$@"
fi
if [ -x /.singularity.d/test ]; then
    exec /.singularity.d/test "$@"
fi
echo 'This image has no test.'
""",
}

_ENVIRONMENT: Final = {
    "01-base.sh": """\
#!/bin/sh
# Nothing is set before the image's own environment.
""",
    "90-environment.sh": """\
#!/bin/sh
# The environment of a definition file; images of registries have none.
""",
    "95-apps.sh": f"""\
#!/bin/sh
# The app of the Scientific Filesystem that is asked for, if the image has one.
if [ -n "{_APP}" ] && [ -d "/scif/apps/{_APP}" ]; then
    SCIF_APPS=/scif/apps
    SCIF_APPROOT="/scif/apps/{_APP}"
    PATH="$SCIF_APPROOT/bin:$SCIF_APPROOT:$PATH"
    LD_LIBRARY_PATH="$SCIF_APPROOT/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    export SCIF_APPS SCIF_APPROOT PATH LD_LIBRARY_PATH
    if [ -f "$SCIF_APPROOT/scif/env/01-base.sh" ]; then
        . "$SCIF_APPROOT/scif/env/01-base.sh"
    fi
    if [ -f "$SCIF_APPROOT/scif/env/90-environment.sh" ]; then
        . "$SCIF_APPROOT/scif/env/90-environment.sh"
    fi
fi
""",
    "99-base.sh": """\
#!/bin/sh
# Libraries that the host gives the container, such as those of its GPUs.
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
export LD_LIBRARY_PATH
if [ -z "${PS1:-}" ]; then
    PS1='Apptainer> '
fi
export PS1
""",
    "99-runtimevars.sh": """\
#!/bin/sh
# What whoever runs the image wants of its PATH.
if [ -n "${SING_USER_DEFINED_PREPEND_PATH:-}" ]; then
    PATH="$SING_USER_DEFINED_PREPEND_PATH:$PATH"
fi
if [ -n "${SING_USER_DEFINED_APPEND_PATH:-}" ]; then
    PATH="$PATH:$SING_USER_DEFINED_APPEND_PATH"
fi
if [ -n "${SING_USER_DEFINED_PATH:-}" ]; then
    PATH=$SING_USER_DEFINED_PATH
fi
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
export PATH
""",
}

_STARTSCRIPT: Final = """\
#!/bin/sh
# Images of registries do not say what an instance of theirs does.
"""

_MOUNT_POINTS: Final = {
    "dev": 0o755,
    "proc": 0o755,
    "root": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
    "tmp": 0o1777,
    "etc": 0o755,
    "sys": 0o755,
    "home": 0o755,
}
"""Directories that Apptainer mounts on, or below."""

_LINKS: Final = {
    "singularity": ".singularity.d/runscript",
    ".run": ".singularity.d/actions/run",
    ".exec": ".singularity.d/actions/exec",
    ".test": ".singularity.d/actions/test",
    ".shell": ".singularity.d/actions/shell",
    "environment": ".singularity.d/env/90-environment.sh",
}


def generated_entries(configuration: RunConfiguration) -> Sequence[GeneratedEntry]:
    """Make the entries that a flat image has besides those of its layers, parents before what is in them."""
    return tuple(_entries(configuration))


def _entries(configuration: RunConfiguration) -> Iterator[GeneratedEntry]:
    mtime = configuration.created

    def directory(path: str, mode: int = 0o755) -> GeneratedEntry:
        return GeneratedEntry(path=path.encode(), kind=GeneratedKind.DIRECTORY, mode=mode, mtime=mtime)

    def file(path: str, content: str, mode: int = 0o755) -> GeneratedEntry:
        return GeneratedEntry(
            path=path.encode(), kind=GeneratedKind.FILE, mode=mode, data=content.encode(), mtime=mtime
        )

    for path in (_ROOT, f"{_ROOT}/libs", f"{_ROOT}/actions", f"{_ROOT}/env"):
        yield directory(path)
    for name, content in _ACTIONS.items():
        yield file(f"{_ROOT}/actions/{name}", content)
    for name, content in _ENVIRONMENT.items():
        yield file(f"{_ROOT}/env/{name}", content)
    yield file(f"{_ROOT}/env/10-docker2singularity.sh", _environment_script(configuration))
    yield file(f"{_ROOT}/runscript", _runscript(configuration))
    yield file(f"{_ROOT}/startscript", _STARTSCRIPT)
    labels = json.dumps(dict(configuration.labels), indent=1, sort_keys=True)
    yield file(f"{_ROOT}/labels.json", f"{labels}\n", 0o644)
    for path, mode in _MOUNT_POINTS.items():
        yield _if_missing(directory(path, mode))
    for path in ("etc/hosts", "etc/resolv.conf"):
        yield _if_missing(file(path, "", 0o644))
    for path, target in _LINKS.items():
        link = GeneratedEntry(path=path.encode(), kind=GeneratedKind.SYMLINK, data=target.encode(), mtime=mtime)
        yield _if_missing(link)


def _if_missing(entry: GeneratedEntry) -> GeneratedEntry:
    return dataclasses.replace(entry, only_if_missing=True)


def _environment_script(configuration: RunConfiguration) -> str:
    """Set what the host has not set, but for the PATH, which is always the image's."""
    lines = ["#!/bin/sh", "# The image's environment."]
    for name, value in configuration.environment.items():
        if value is None:
            # Some shells have variables that cannot be set; these are not empty.
            lines.append(f"[ -n \"${{{name}:-}}\" ] || {name}=''; export {name}")
        elif name == "PATH":
            lines.append(f"{name}={_quoted(value)}; export {name}")
        else:
            lines.append(f'[ -n "${{{name}:-}}" ] || {name}={_quoted(value)}; export {name}')
    return "".join(f"{line}\n" for line in lines)


def _runscript(configuration: RunConfiguration) -> str:
    """Run the entrypoint with the arguments that are given, or else with those of the image."""
    lines = ["#!/bin/sh", "# The image's command; arguments replace those that it has itself."]
    default = configuration.command or (() if configuration.entrypoint else ("/bin/sh",))
    if default:
        lines += ["if [ $# -eq 0 ]; then", f"    set -- {_all_quoted(default)}", "fi"]
    if configuration.entrypoint:
        lines.append(f'set -- {_all_quoted(configuration.entrypoint)} "$@"')
    # A shell would take such a name for an option of exec; not every one knows the -- that ends these.
    lines += [
        "case $1 in",
        "    -*)",
        "        printf '%s: no such command\\n' \"$1\" >&2",
        "        exit 127",
        "        ;;",
    ]
    lines += ["esac", 'exec "$@"']
    return "".join(f"{line}\n" for line in lines)


def _all_quoted(arguments: Sequence[str]) -> str:
    return " ".join(map(_quoted, arguments))


def _quoted(text: str) -> str:
    """Quote a text for any shell (POSIX.1-2017, XCU 2.2.2)."""
    return "'" + text.replace("'", "'\\''") + "'"
