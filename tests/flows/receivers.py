"""Small servers on loopback that keep what they are sent."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@contextmanager
def web_receiver(*statuses: int) -> Iterator[tuple[str, list[Any]]]:
    """Address and received JSON; answers with these statuses in turn, then with 200."""
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            n = len(received)
            self.send_response(statuses[n - 1] if n <= len(statuses) else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Tests print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        yield f"http://127.0.0.1:{server.server_port}/hook", received


@contextmanager
def mail_receiver() -> Iterator[tuple[int, list[str]]]:
    """Port and received messages, envelope first; speaks just enough SMTP, and offers no TLS."""
    received: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            lines: list[str] = []
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                if line.upper() == "DATA":
                    self.wfile.write(b"354 go\r\n")
                    while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                        lines.append(text)
                    received.append("\n".join(lines))
                elif line.upper().startswith(("MAIL", "RCPT")):
                    lines.append(line)
                self.wfile.write(b"221 bye\r\n" if line.upper() == "QUIT" else b"250 ok\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server, _serving(server):
        yield server.server_address[1], received


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
