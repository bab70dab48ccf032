"""One of several processes that use a store at once: `python -m ... STORE WHAT COUNT [WHO]`."""

from __future__ import annotations

import sys
from typing import Any

from abi.proxy_wasm.services import Services
from abi.proxy_wasm.types import MetricType, Status
from pywasmproxy.stores import open_store, redis, sqlite

redis.PATIENCE = sqlite.PATIENCE = 20.0  # several of us on a busy machine


def raise_number(services: Services, count: int, who: str) -> None:
    """Add one to a number under a key, `count` times, by compare-and-swap."""
    done = tries = 0
    while done < count:
        tries += 1
        value, cas = numbered(services)
        status = services.data.set("V", b"number", str(int(value) + 1).encode(), cas)
        if status is Status.OK:
            done += 1
        elif status is not Status.CAS_MISMATCH:
            raise RuntimeError(status)
    print(tries)


def numbered(services: Services) -> tuple[bytes, int]:
    found = services.data.get("V", b"number")
    if isinstance(found, Status):
        raise RuntimeError(found)
    return found


def put(services: Services, count: int, who: str) -> None:
    """Put items in."""
    token = services.queues.resolve("V", b"q")
    for number in range(count):
        status = services.queues.enqueue(token, f"{who}{number}".encode())
        if status is not Status.OK:
            raise RuntimeError(status)


def take(services: Services, count: int, who: str) -> None:
    """Take items out until one says `end`, and tell of each."""
    token = services.queues.resolve("V", b"q")
    while True:
        item = services.queues.dequeue(token)
        if item == b"end":
            return
        if isinstance(item, bytes):
            print(item.decode(), flush=True)
        elif item is not Status.EMPTY:
            raise RuntimeError(item)


def measure(services: Services, count: int, who: str) -> None:
    """Count, move a gauge, and take samples."""
    made: list[Any] = [services.metrics.define(kind, b"m") for kind in MetricType]
    for number in range(count):
        made[0].increment(2)
        made[1].increment(1)
        made[2].record(number)
        if number % 10 == 0:
            services.poll()
    services.close()


def main() -> None:
    store, what, count, who = [*sys.argv[1:], ""][:4]
    services = Services(open_store(store))
    {"raise": raise_number, "put": put, "take": take, "measure": measure}[what](services, int(count), who)


if __name__ == "__main__":
    main()
