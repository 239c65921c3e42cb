"""Real servers on this machine, which answer requests of JSON as a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The status, the body (a text is sent as it is) and the headers of a reply.
Reply = tuple[int, Any, dict[str, str]]
# Maps the path, the body and the authorization of a request to the reply.
Answer = Callable[[str, Any, str], Reply]


class Listener(ThreadingHTTPServer):
    """A server at a free port; `answer` is set before it is asked."""

    daemon_threads = True
    request_queue_size = 64
    answer: Answer

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers POST."""

    server: Listener

    def do_POST(self) -> None:
        """Read a request and send the reply."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, reply, headers = self.server.answer(self.path, body, self.headers.get("Authorization", ""))
        content = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
        stated = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        try:
            self.send_response(status)
            for name, value in stated.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the client did not wait

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def listening() -> Iterator[Listener]:
    """Yield a server that listens until the end."""
    with Listener(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield listener
        finally:
            listener.shutdown()
