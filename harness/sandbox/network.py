"""A way to the outside for one sandbox: slirp4netns, which is to its network what a router at home is.

It runs outside, as an ordinary process with sockets of its own, and shows the sandbox one interface. Neither the
machine's firewall nor its routes know of it, and the machine's loopback interface stays out of reach. It ends when the
pipe that it was given closes, so with whoever started the sandbox, however that ends.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.sandbox import SandboxError

__all__ = ["PROGRAM", "connected", "use_name_server"]

PROGRAM: Final = "slirp4netns"
"""The program, of the package of the same name."""

_INTERFACE: Final = "outside0"
_NAME_SERVER: Final = "10.0.2.3"
"""Where slirp4netns answers, by asking the name servers of the machine; its network is 10.0.2.0/24."""

_MTU: Final = 65520
"""Large packets: every one costs two copies."""


@contextmanager
def connected(process: int) -> Iterator[None]:
    """Give the network namespace of a process a way to the outside while the context is open.

    Raises
    ------
    SandboxError
        slirp4netns failed; the text holds what it said.
    """
    exit_reader, exit_writer = os.pipe()
    ready_reader, ready_writer = os.pipe()
    command = [
        PROGRAM,
        "--configure",
        f"--mtu={_MTU}",
        "--disable-host-loopback",
        "--netns-type=path",
        f"--exit-fd={exit_reader}",
        f"--ready-fd={ready_writer}",
        f"/proc/{process}/ns/net",
        _INTERFACE,
    ]
    with tempfile.TemporaryFile() as said:
        # In a session of its own, so that a Ctrl-C in the terminal does not cut the line before the sandbox ends.
        slirp = subprocess.Popen(
            command, pass_fds=[exit_reader, ready_writer], stdout=said, stderr=said, start_new_session=True
        )
        os.close(exit_reader)
        os.close(ready_writer)
        try:
            if not os.read(ready_reader, 1):
                status = slirp.wait()
                said.seek(0)
                raise SandboxError(f"{PROGRAM} ended with status {status}: {said.read().decode(errors='replace')}")
            yield
        finally:
            os.close(ready_reader)
            os.close(exit_writer)
            slirp.wait()


def use_name_server(resolver: Path) -> None:
    """Let programs in the sandbox ask the name server that slirp4netns has; the file itself stays as it is."""
    own = Path("/run/resolv.conf")
    own.write_text(f"nameserver {_NAME_SERVER}\n")
    subprocess.run(["mount", "--bind", own, resolver], check=True)
