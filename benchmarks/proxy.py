"""CPU of one request through a proxy without filters: ours on both codecs, and others.

    python -m benchmarks.run proxy

Every proxy is a process of its own on one event loop, before one upstream, under ten keep-alive connections
that send small GETs, and its CPU time is read from the system before and after. The peers, where they are
installed: the smallest reverse proxy one can write with `aiohttp` (`aiohttp_proxy.py`), `mitmdump` in reverse
mode, and Envoy with one worker, for orientation. `PROXY_PEERS` may name another Python that has aiohttp and
mitmproxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import timing

ROOT = Path(__file__).resolve().parents[1]

CONNECTIONS, WARM, COUNT = 10, 2_000, 4_000
REQUEST = b"GET /x?y=1 HTTP/1.1\r\nhost: a.test\r\nuser-agent: bench/1.0\r\naccept: */*\r\n\r\n"
BODY = b"Hello World!"

UPSTREAM = """
import asyncio, sys
ANSWER = b"HTTP/1.1 200 OK\\r\\ncontent-type: text/plain\\r\\ncontent-length: 12\\r\\n\\r\\nHello World!"
class Upstream(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(ANSWER * data.count(b"\\r\\n\\r\\n"))
async def main():
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""

CONFIGURATION = """
static_resources:
  listeners:
  - name: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.{manager}
          stat_prefix: bench
          route_config:
            name: local
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def commands(port: int, upstream: int, folder: Path) -> dict[str, list[str]]:
    """What to start for each proxy that is here."""
    path = folder / "envoy.yaml"
    path.write_text(CONFIGURATION.format(port=port, upstream=upstream, manager="HttpConnectionManager"))
    serve = [sys.executable, "-m", "pywasmvm", "serve", "-c", str(path), "-l", "off", "--no-watch"]
    found = {"ours, h11": [*serve, "--codec", "h11", "--loop", "asyncio"]}
    if importlib.util.find_spec("httptools"):
        found["ours, httptools"] = [*serve, "--codec", "httptools", "--loop", "asyncio"]
        if importlib.util.find_spec("uvloop"):
            found["ours, httptools and uvloop"] = [*serve, "--codec", "httptools", "--loop", "uvloop"]
    python = os.environ.get("PROXY_PEERS") or sys.executable
    if _imports(python, "aiohttp"):
        found["aiohttp"] = [python, str(ROOT / "benchmarks" / "aiohttp_proxy.py"), str(port), str(upstream)]
    if _imports(python, "mitmproxy"):
        mode = f"reverse:http://127.0.0.1:{upstream}"
        found["mitmproxy"] = [str(Path(python).parent / "mitmdump"), "-q", "--mode", mode, "-p", str(port)]
    envoy = shutil.which("envoy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if envoy is not None:
        found["envoy"] = [envoy, "-c", str(path), "-l", "off", "--concurrency", "1"]
    return found


def _imports(python: str, module: str) -> bool:
    command = [
        python,
        "-c",
        f"import importlib.util; raise SystemExit(not importlib.util.find_spec({module!r}))",
    ]
    return subprocess.run(command, check=False).returncode == 0


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    null = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=null, stderr=null) as process:
        try:
            for _ in range(300):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


async def _load(port: int, count: int) -> None:
    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // CONNECTIONS):
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            timing.check("the status", head[:13], b"HTTP/1.1 200 ")
            timing.check("the body", await reader.readexactly(len(BODY)), BODY)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


def _cpu(process: int) -> float:
    """Seconds of CPU time of a process and of those it has started."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int = 6) -> list[dict[str, Any]]:
    """Microseconds of CPU for one request of each proxy, the best of several rounds. In a round all of them
    take their turn, so that what else the machine does is the same for all."""
    if not Path("/proc/self/stat").exists():
        print("proxy: left out, this system does not say what a process has used")
        return []
    upstream = _free_port()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(_running([sys.executable, "-c", UPSTREAM, str(upstream)], upstream))
        running: dict[str, tuple[int, int]] = {}
        for name in commands(0, upstream, folder):
            port, own = _free_port(), folder / name.replace(" ", "-")
            own.mkdir()
            process = stack.enter_context(_running(commands(port, upstream, own)[name], port))
            running[name] = process.pid, port
            asyncio.run(_load(port, WARM))
        best = dict.fromkeys(running, float("inf"))
        for _ in range(rounds):
            for name, (process_id, port) in running.items():
                begin = _cpu(process_id)
                asyncio.run(_load(port, COUNT))
                best[name] = min(best[name], (_cpu(process_id) - begin) / COUNT * 1e6)
    print(f"{'proxy, us of CPU':32}", "request", sep=" ")
    for name, least in best.items():
        print(f"{name:32} {least:7.0f}", flush=True)
    return [{"proxy": name, "request_us": least} for name, least in best.items()]
