"""`python -m services.snapshotter`: the snapshotter as a process."""

import signal
import sys

from services.snapshotter.rpc.greeting import Greeter, inherited_socket

__all__ = ["main"]


def main() -> int:
    """Greet whoever waits for the program already, and run it; return the exit status."""
    listener, greeter = inherited_socket(), None
    if listener is not None:
        # Until it can be served in order: whoever has been greeted is told where to go.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        greeter = Greeter(listener)
    # This takes many times as long as what has been loaded by now, and clients wait a second and no longer.
    from services.snapshotter.command import command  # noqa: PLC0415

    return command(greeter)


if __name__ == "__main__":
    sys.exit(main())
