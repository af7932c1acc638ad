"""`python -m services.snapshotter`: the snapshotter as a process."""

import sys

from services.snapshotter.rpc.greeting import Greeter, inherited_socket

__all__ = ["main"]


def main() -> int:
    """Greet whoever waits for the program already, and run it; return the exit status."""
    listener = inherited_socket()
    greeter = None if listener is None else Greeter(listener)
    # This takes many times as long as what has been loaded by now, and clients wait a second and no longer.
    from services.snapshotter.command import command  # noqa: PLC0415

    return command(greeter)


if __name__ == "__main__":
    sys.exit(main())
