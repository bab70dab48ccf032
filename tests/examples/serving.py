"""An example's `envoy.yaml` behind real sockets: our proxy as a process, the demo's upstream behind it."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.examples import guests
from tests.replay.proxy import Command, free_port

PATIENCE = 60.0  # seconds for the first answer; a Go filter takes a few to start


@dataclass
class Answer:
    """A response as the client saw it; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Front:
    """The listener of a running proxy, and what the proxy has logged."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def request(
        self,
        path: str = "/",
        method: str = "GET",
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One exchange on a connection of its own; waits for the port to answer."""
        give_up = time.monotonic() + PATIENCE
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            try:
                connection.request(method, path, body=body, headers=headers or {})
                response = connection.getresponse()
                fields = [(name.lower(), value) for name, value in response.getheaders()]
                return Answer(response.status, fields, response.read())
            except ConnectionRefusedError:
                if time.monotonic() > give_up:
                    raise RuntimeError(f"nothing answers; the proxy said:\n{self.log.read_text()}") from None
                time.sleep(0.05)
            finally:
                connection.close()

    def guest_lines(self, wanted: str) -> list[str]:
        """What filters have logged, once `wanted` is in it (or has not come for a while)."""
        give_up = time.monotonic() + PATIENCE / 4
        while True:
            text = self.log.read_text(encoding="utf-8", errors="replace")
            lines = [line[line.index("wasm log") :] for line in text.splitlines() if "wasm log" in line]
            if any(wanted in line for line in lines) or time.monotonic() > give_up:
                return lines
            time.sleep(0.02)


@contextlib.contextmanager
def answering(
    answers: dict[str, tuple[int, dict[str, str], bytes]],
) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """An upstream with one answer per path (an empty 200 for others): its port, and the requests' headers."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            status, headers, body = answers.get(self.path, (200, {}, b""))
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def example(
    name: str, folder: Path, replaced: dict[str, str] | None = None, upstream: int | None = None
) -> Iterator[Front]:
    """Serve examples/`name` in `folder`; `replaced` changes texts of its configuration.

    Behind it is the demo's upstream, or what listens on the port `upstream` already.
    """
    wasm = guests.build(name)
    shutil.copy(wasm, folder / wasm.name)
    behind, port = upstream or free_port(), free_port()
    text = (guests.EXAMPLES / name / "envoy.yaml").read_text(encoding="utf-8")
    for old, new in {"8099": str(port), "8080": str(behind), **(replaced or {})}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "envoy.yaml").write_text(text, encoding="utf-8")
    log = folder / "proxy.log"
    processes = []
    with log.open("wb") as output:
        if upstream is None:
            script = guests.EXAMPLES / "add-header" / "upstream.py"
            processes.append(subprocess.Popen([sys.executable, str(script), str(behind)], stdout=output))
        line = Command.parse(None).line(Path("envoy.yaml"), "debug")
        processes.append(subprocess.Popen(line, cwd=folder, stdout=output, stderr=output))
    try:
        Front(behind, log).request()
        yield Front(port, log)
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)
