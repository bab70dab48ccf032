"""Throughput of `pywasmvm serve` with one worker and with two, through the seed filter: requests a second.

Both are running; clients ask the one, then the other, in turn, the best of several rounds. The clients need
processor time as well, though little beside what a request through the filter takes; so on a machine with two
processors two workers cannot quite reach twice the throughput of one.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from benchmarks import timing

ROOT = Path(__file__).resolve().parents[1]

WORKERS = (1, 2)

CONNECTIONS = 16

REQUEST = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"
BODY = b"Hello World!"

CONFIGURATION = """
static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.HTTP_CONNECTION_MANAGER
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "Hello World!"}}}
          http_filters:
          - name: envoy.filters.http.wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: add_header
                root_id: add_header
                configuration:
                  "@type": type.googleapis.com/google.protobuf.StringValue
                  value: abcd
                vm_config:
                  vm_id: add_header_vm
                  runtime: envoy.wasm.runtime.v8
                  code: {local: {filename: examples/add-header/add-header.wasm}}
          - name: envoy.filters.http.router
            typed_config: {}
""".replace(
    "HTTP_CONNECTION_MANAGER", "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)


@contextlib.contextmanager
def serving(workers: int) -> Iterator[int]:
    """A proxy with so many workers; its port."""
    options = [
        "--config-yaml",
        CONFIGURATION,
        "--concurrency",
        str(workers),
        "--component-log-level",
        "wasm:error",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "pywasmvm", "serve", *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        port, lines = 0, []
        ready = "starting main dispatch loop" if workers == 1 else f"all {workers} workers serve"
        for line in process.stderr or ():
            lines.append(line)
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)$", line)
            port = int(found[1]) if found else port
            if ready in line:
                break
        else:
            raise RuntimeError(f"the proxy does not start: {lines}")
        yield port
    finally:
        process.terminate()
        process.communicate()


class Clients:
    """Connections that ask again as soon as they have an answer."""

    def __init__(self, port: int, count: int = CONNECTIONS) -> None:
        self._ready = selectors.DefaultSelector()
        self._sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ready.register(one, selectors.EVENT_READ, bytearray())
            one.sendall(REQUEST)

    def answered(self, seconds: float) -> float:
        """Answers a second for a while."""
        count, begin = 0, time.perf_counter()
        end = begin + seconds
        while (now := time.perf_counter()) < end:
            for key, _ in self._ready.select(1):
                one, got = cast(socket.socket, key.fileobj), key.data
                got += one.recv(65536)
                if not got.endswith(BODY):
                    timing.check("an answer's beginning", bytes(got[:15]), b"HTTP/1.1 200 OK"[: len(got)])
                    continue
                timing.check("the filter's header", b"\r\nhi: abcd\r\n" in got, True)
                got.clear()
                one.sendall(REQUEST)
                count += 1
        return count / (now - begin)

    def close(self) -> None:
        self._ready.close()
        for one in self._sockets:
            one.close()


def _rest(clients: Clients) -> None:
    """Let the last answers come, so that they are not made in somebody else's time."""
    clients.close()
    time.sleep(0.2)


def measure(rounds: int, seconds: float = 2.0) -> list[dict[str, Any]]:
    """Rows of one number of workers each; none where a process cannot fork or has one processor only."""
    if not hasattr(os, "fork") or (os.cpu_count() or 1) < 2:
        print("workers: left out, they need fork and two processors")
        return []
    most = dict.fromkeys(WORKERS, 0.0)
    used = dict.fromkeys(WORKERS, 0.0)
    with contextlib.ExitStack() as stack:
        ports = {count: stack.enter_context(serving(count)) for count in WORKERS}
        for count in WORKERS:  # first requests are slower
            clients = Clients(ports[count])
            clients.answered(seconds)
            _rest(clients)
        for _ in range(rounds):
            for count in WORKERS:
                clients, before = Clients(ports[count]), timing.clock()
                found = clients.answered(seconds)
                if found > most[count]:
                    most[count], used[count] = found, (timing.clock() - before) / seconds
                _rest(clients)
    rows = [{"workers": count, "per_second": most[count], "clients": used[count]} for count in WORKERS]
    for row in rows:
        print(
            f"{row['workers']} worker(s): {row['per_second']:7.0f} requests a second, the clients took "
            f"{row['clients']:.0%} of a processor"
        )
    print(f"two workers have {rows[1]['per_second'] / rows[0]['per_second']:.2f} times the throughput of one")
    return rows
