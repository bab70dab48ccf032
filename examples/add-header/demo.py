"""The demo: upstream, proxy and one request; ends with status 0 only if the filter's header came back.

Runs both programs as a user would (`upstream.py`, `pywasmvm serve -c envoy.yaml -l debug`) in this folder,
with the configuration unmodified. Needs the project with its extra `proxy`: `make demo` sees to that.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
UPSTREAM_PORT = 8080
PROXY_PORT = 8099
HEADER = ("hi", "trendyol!")
START_LIMIT = 30.0  # seconds; a slow machine imports numpy in one


class DemoError(Exception):
    """Something a user can do something about; the message says what."""


def check_port(port: int, whose: str) -> None:
    """DemoError when somebody listens on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        if sys.platform != "win32":  # there the option would let two programs share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} on 127.0.0.1 is taken ({error.strerror}), and {whose} needs it. "
                "Stop the program that listens there and try again."
            ) from None


@contextlib.contextmanager
def program(arguments: list[str], port: int, log: Path) -> Iterator[None]:
    """Run `python ARGUMENTS` until the block ends, which begins once 127.0.0.1:`port` answers."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=HERE, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(port, child, log)
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_LIMIT
    while time.monotonic() < give_up:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    said = log.read_text(encoding="utf-8", errors="replace")
    raise DemoError(f"nothing answers on port {port}. The program there said:\n{said}")


def request() -> tuple[str, list[tuple[str, str]], str]:
    """GET / through the proxy: status line, header fields, body."""
    connection = http.client.HTTPConnection("127.0.0.1", PROXY_PORT, timeout=10)
    try:
        connection.request("GET", "/", headers={"accept": "*/*"})
        response = connection.getresponse()
        body = response.read().decode("utf-8", "replace")
        return f"HTTP/1.1 {response.status} {response.reason}", response.getheaders(), body
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"the request failed: {error!r}") from error
    finally:
        connection.close()


def filter_lines(log: Path) -> list[str]:
    """The filter's own log lines; waits a moment for the last one of the stream."""
    for _ in range(40):
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if "wasm log" in line]
        if any("onDelete()" in line for line in lines):
            break
        time.sleep(0.05)
    return [line[line.index("wasm log") :] for line in lines]


def run(folder: Path) -> bool:
    check_port(UPSTREAM_PORT, "the upstream")
    check_port(PROXY_PORT, "the proxy")
    upstream_log, proxy_log = folder / "upstream.log", folder / "proxy.log"
    serve = ["-m", "pywasmvm", "serve", "-c", "envoy.yaml", "-l", "debug"]
    with (
        program(["upstream.py", str(UPSTREAM_PORT)], UPSTREAM_PORT, upstream_log),
        program(serve, PROXY_PORT, proxy_log),
    ):
        print(f"$ curl -i http://127.0.0.1:{PROXY_PORT}/", flush=True)
        try:
            status, headers, body = request()
        except DemoError as error:
            said = proxy_log.read_text(encoding="utf-8", errors="replace")
            raise DemoError(f"{error}\nThe proxy said:\n{said}") from None
        lines = filter_lines(proxy_log)
    print(status)
    for name, value in headers:
        print(f"{name}: {value}")
    print(f"\n{body}\n\nWhat the filter wrote to the proxy's log:")
    for line in lines:
        print(f"  {line}")
    values = [value for name, value in headers if name.lower() == HEADER[0]]
    if values != [HEADER[1]]:
        print(f"\nThe response should have `{HEADER[0]}: {HEADER[1]}` once; it has {values or 'none'}.")
        return False
    print(f"\nThe filter, compiled from AssemblyScript, added `{HEADER[0]}: {HEADER[1]}`.")
    return True


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file may be started by any Python
        print(f"demo: Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            return 0 if run(Path(folder)) else 1
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
