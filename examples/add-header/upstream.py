"""The upstream of the demo: answers every request with `Hello World!`.

Standard library only. `python upstream.py [PORT]`; the port is 8080 unless given, the address 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"Hello World!"


class Hello(BaseHTTPRequestHandler):
    """Reads the whole request, then greets; connections are kept alive."""

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds an idle connection may hold its thread

    def answer(self) -> None:
        self._skip_body()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _skip_body(self) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                self.rfile.read(size + 2)
            while self.rfile.readline().strip():
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the demo's output is the proxy's."""


def main() -> int:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Hello)
    except OSError as error:
        print(f"upstream: cannot listen on 127.0.0.1:{port}: {error.strerror}", file=sys.stderr)
        return 1
    server.daemon_threads = True
    print(f"upstream: http://127.0.0.1:{server.server_address[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
