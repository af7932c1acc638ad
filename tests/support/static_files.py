"""A server of static files, as repositories have one in front of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["StaticFiles", "served"]


class StaticFiles(SimpleHTTPRequestHandler):
    """Answers without a word on the terminal."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(root: Path, handler: type[StaticFiles] = StaticFiles) -> Iterator[str]:
    """Serve a directory; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
