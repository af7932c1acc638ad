"""Answers of web servers that lie, byte by byte, and a server that gives them."""

import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["ANSWERS", "answering"]


def _moved(to: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: " + to + b"\r\nContent-Length: 0\r\n\r\n"


def _found(headers: bytes, body: bytes = b"abc") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n\r\n" + body


ANSWERS: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "rubbish": b"\xff\xfe\x00\r\n\r\n",
    "status-of-no-number": b"HTTP/1.1 abc\r\n\r\n",
    "status-too-large": b"HTTP/1.1 999999 x\r\n\r\n",
    "another-protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "headers-without-end": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    "header-of-a-megabyte": _found(b"a: " + b"b" * (1 << 20)),
    "headers-cut": b"HTTP/1.1 200 OK\r\nContent-Le",
    "length-too-large": _found(b"Content-Length: 99999999999999999999"),
    "larger-than-the-limit": _found(b"Content-Length: 4194304", bytes(4 << 20)),
    "larger-than-the-limit-in-chunks": _found(
        b"Transfer-Encoding: chunked", b"100000\r\n" + bytes(1 << 20) + b"\r\n0\r\n\r\n"
    ),
    "body-cut": _found(b"Content-Length: 10"),
    "chunk-of-no-number": _found(b"Transfer-Encoding: chunked", b"zz\r\nabc"),
    "chunk-below-zero": _found(b"Transfer-Encoding: chunked", b"-5\r\nabc"),
    "chunk-cut": _found(b"Transfer-Encoding: chunked", b"5\r\nabc"),
    "moved-in-circles": _moved(b"/again"),
    "moved-to-a-file": _moved(b"file:///etc/passwd"),
    "moved-to-ftp": _moved(b"ftp://127.0.0.1:1/x"),
    "moved-to-no-port": _moved(b"http://host:port/"),
    "moved-to-half-an-address": _moved(b"http://[::1"),
    "moved-to-no-text": _moved(b"http://\xff\xfe/"),
    "moved-to-an-empty-label": _moved(b"http://a..b/"),
    "moved-to-a-long-label": _moved(b"http://" + b"a" * 70 + b".x/"),
    "moved-to-nobody": _moved(b"http://127.0.0.1:1/"),
    "moved-nowhere": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "forbidden": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "failed": b"HTTP/1.1 500 Failed\r\nContent-Length: 99\r\n\r\nx",
}
"""Answers by their names: none gives a file."""


@contextmanager
def answering() -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that gives the last of a list of answers, whatever it is asked; give its address and the list."""
    answers = [b""]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            # Who is lied to may go away.
            with suppress(ConnectionError):
                self.request.sendall(answers[-1])

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", answers
        finally:
            server.shutdown()
            thread.join()
