"""Soak test: many keep-alive connections through a proxy process with a filter; nothing lost, nothing leaked.

Run as a script (`make soak`). Ends with 0 only if every response carries the filter's header exactly once and
its own request's body, and if the proxy's memory beyond the guests' linear memory grows by less than the
limit over the last nine tenths. The proxy reports its memory when it gets SIGUSR1.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILTER = ROOT / "examples" / "add-header" / "add-header.wasm"
HEADER = b"hi: trendyol!"
WARM_UP = 0.1  # part of the requests before the first measurement

HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
CONFIG = """
static_resources:
  listeners:
  - name: soak
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {hcm}
          stat_prefix: soak
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{prefix: "/"}}, route: {{cluster: echo, timeout: 0s}}}}
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: add_header
                root_id: add_header
                vm_config:
                  vm_id: my_vm_id
                  runtime: envoy.wasm.runtime.v8
                  code: {{local: {{filename: {filter}}}}}
          - name: envoy.filters.http.router
            typed_config: {{}}
  clusters:
  - name: echo
    type: STATIC
    load_assignment:
      cluster_name: echo
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"""


class Echo(asyncio.Protocol):
    """An upstream that answers every request with its path and body: by length, or in chunks for odd ids."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = re.search(rb"\r\ncontent-length: (\d+)", head)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < size:
                return
            path = self.buffer.split(b" ", 2)[1]
            body = path + b" " + self.buffer[end + 4 : size]
            self.buffer = self.buffer[size:]
            if path[-1] & 1:
                framed = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            else:
                framed = b"content-length: %d\r\n\r\n%b" % (len(body), body)
            self.transport.write(b"HTTP/1.1 200 OK\r\n" + framed)  # type: ignore[attr-defined]


@dataclass
class Proxy:
    """The proxy process and what its log says."""

    process: asyncio.subprocess.Process
    port: int = 0
    status: asyncio.Queue[dict[str, int]] = field(default_factory=asyncio.Queue)
    tail: list[str] = field(default_factory=list)

    @classmethod
    async def start(cls, config: Path, options: list[str]) -> Proxy:
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "pywasmvm", "serve", "-c", str(config), *options],
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        proxy = cls(process)
        listening = asyncio.get_running_loop().create_future()
        proxy._reader = asyncio.create_task(proxy._read(listening))  # type: ignore[attr-defined]
        proxy.port = await asyncio.wait_for(listening, 60)
        return proxy

    async def _read(self, listening: asyncio.Future[int]) -> None:
        if self.process.stderr is None:
            return
        async for raw in self.process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            self.tail = [*self.tail[-20:], line]
            if found := re.search(r"listener \S+: listening on \S+:(\d+)$", line):
                listening.set_result(int(found[1]))
            if "] status: " in line:
                self.status.put_nowait({k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)})
        if not listening.done():
            listening.set_exception(RuntimeError("the proxy ended: " + "\n".join(self.tail)))

    async def measure(self) -> dict[str, int]:
        """What the proxy says about itself now."""
        self.process.send_signal(signal.SIGUSR1)
        return await asyncio.wait_for(self.status.get(), 30)


class Clients:
    """Sends requests on many connections and checks every answer."""

    def __init__(self, port: int, in_flight: int) -> None:
        self.port = port
        self.next = 0
        self.faults: list[str] = []
        # The SDK lists every living context in three log lines a request, so a guest's work grows with the
        # square of the requests in flight; connections wait for their turn, in order.
        self.turns = asyncio.Semaphore(in_flight)

    async def send(self, connections: list[Connection], count: int) -> None:
        """`count` further requests, spread over the connections."""
        last = self.next + count
        await asyncio.gather(*(self._worker(connection, last) for connection in connections))

    async def _worker(self, connection: Connection, last: int) -> None:
        while self.next < last:
            async with self.turns:
                number = self.next
                if number >= last:
                    return
                self.next += 1
                try:
                    fault = await asyncio.wait_for(connection.exchange(number), 60)
                except (OSError, EOFError, TimeoutError) as error:
                    fault = f"request {number}: {type(error).__name__} {error}"
                    self.faults.append(fault)
                    return
                if fault:
                    self.faults.append(fault)


class Connection:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def exchange(self, number: int) -> str | None:
        """One request; what was wrong with its answer."""
        body = b"payload-%d;" % number * (number % 7)
        path = b"/echo/%d" % number
        method = b"POST" if body else b"GET"
        length = b"content-length: %d\r\n" % len(body) if body else b""
        self.writer.write(b"%b %b HTTP/1.1\r\nhost: soak.test\r\n%b\r\n%b" % (method, path, length, body))
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        length_line = next((line for line in lines if line.startswith(b"content-length: ")), None)
        if length_line is not None:
            answer = await self.reader.readexactly(int(length_line.split()[1]))
        else:
            answer = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                answer += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        if lines[0] != b"HTTP/1.1 200 OK":
            return f"request {number}: {lines[0]!r}"
        if lines.count(HEADER) != 1:
            return f"request {number}: the filter's header is there {lines.count(HEADER)} times"
        if answer != path + b" " + body:
            return f"request {number}: another body: {answer[:60]!r}"
        return None


async def soak(
    wasm: Path, requests: int, connections: int, in_flight: int, growth_limit: int, options: list[str]
) -> int:
    loop = asyncio.get_running_loop()
    upstream = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
    port = upstream.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "soak.yaml"
        config.write_text(CONFIG.format(hcm=HCM, filter=wasm.resolve(), port=port))
        proxy = await Proxy.start(config, options)
        try:
            began = time.monotonic()
            open_ones = [await Connection.open(proxy.port) for _ in range(connections)]
            clients = Clients(proxy.port, in_flight)
            await clients.send(open_ones, round(requests * WARM_UP))
            before = await proxy.measure()
            await clients.send(open_ones, requests - clients.next)
            after = await proxy.measure()
            seconds = time.monotonic() - began
            for connection in open_ones:
                connection.writer.close()
        finally:
            if proxy.process.returncode is None:
                proxy.process.terminate()
            try:
                exit_status = await asyncio.wait_for(proxy.process.wait(), 30)
            except TimeoutError:
                proxy.process.kill()
                exit_status = await proxy.process.wait()
    upstream.close()

    own = {when: seen["rss"] - seen["guest_memory"] for when, seen in (("before", before), ("after", after))}
    growth = own["after"] - own["before"]
    mebibyte = 1 << 20
    print(f"{clients.next} requests on {connections} connections in {seconds:.1f} s")
    guests = [seen["guest_memory"] / mebibyte for seen in (before, after)]
    print(f"guests' memory: {guests[0]:.1f} -> {guests[1]:.1f} MiB")
    print(f"the proxy's own: {own['before'] / mebibyte:.1f} -> {own['after'] / mebibyte:.1f} MiB")
    print(f"growth over the last nine tenths: {growth / 1024:.0f} KiB (limit {growth_limit // 1024} KiB)")
    faults = clients.faults[:10]
    if len(clients.faults) > 10:
        faults.append(f"... {len(clients.faults) - 10} more")
    if clients.next != requests:
        faults.append(f"only {clients.next} of {requests} requests were sent")
    if growth >= growth_limit:
        faults.append("the proxy's memory grows")
    if after["streams"]:
        faults.append(f"{after['streams']} streams are left over")
    if exit_status:
        faults.append(f"the proxy ended with status {exit_status}")
    for fault in faults:
        print(f"FAULT: {fault}")
    print("soak: " + ("failed" if faults else "passed"))
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wasm", nargs="?", type=Path, default=FILTER, help="filter that adds `hi: trendyol!`")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=32, help="requests under way at once")
    parser.add_argument("--growth-limit", type=int, default=1 << 20, help="bytes")
    parser.add_argument("--codec", default="auto", help="passed to `serve`")
    parser.add_argument("--loop", default="auto", help="passed to `serve`")
    args = parser.parse_args()
    options = ["-l", "info", "--codec", args.codec, "--loop", args.loop]
    return asyncio.run(
        soak(args.wasm, args.requests, args.connections, args.in_flight, args.growth_limit, options)
    )


if __name__ == "__main__":
    sys.exit(main())
