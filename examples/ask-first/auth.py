"""The service that the filter asks: one token is good, all others are not. Standard library only.

`python auth.py [PORT]`; the port is 8081 unless given, the address 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "open sesame"


class Check(BaseHTTPRequestHandler):
    """Answers with an empty 200 or 403."""

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds an idle connection may hold its thread

    def do_GET(self) -> None:
        self.send_response(200 if self.headers.get("X-Token") == GOOD else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> int:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8081
    server = ThreadingHTTPServer(("127.0.0.1", port), Check)
    server.daemon_threads = True
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
