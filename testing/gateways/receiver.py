"""A server that notifications are sent to: what apprise's `json://` and `ntfy://` speak with."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from testing.waiting import eventually


class Receiver:
    """It keeps what was sent to it. `answer` is a status for each request, 0 for one that never
    ends; `where` is told with a redirect.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answer = 200
        self.where = ""
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sent = {**json.loads(body), "headers": dict(self.headers)}
                receiver.requests.append((self.path, sent))
                self.send_response(receiver.answer or 200)
                if receiver.where:
                    self.send_header("Location", receiver.where)
                while not receiver.answer and not receiver._ended.wait(0.5):
                    self.send_header("X-Slow", "x")
                    self.flush_headers()
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # and so the end waits for them

            def handle_error(self, *_: object) -> None:
                pass  # the client went without waiting for the answer

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Title and text of each message."""
        return [(str(body["title"]), str(body["message"])) for _, body in self.requests]

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        """Wait until something is true of it."""

        def check() -> None:
            assert is_there(), self.requests

        eventually(check, 30)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
