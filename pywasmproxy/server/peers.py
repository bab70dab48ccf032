"""`Peers`: the workers of one proxy ask each other, so that the admin server speaks for all of them.

The admin server is the first worker's. What it shows is what all workers say, put together when somebody
asks for it (`view`); what changes something is done by each. Workers talk over Unix sockets in a folder that
is the parent's and nobody else's, a line of JSON each way. One that does not answer soon is left out: it is
being replaced, and its successor asks the others for the orders they were given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from abi.proxy_wasm.types import LogLevel
from pywasmproxy.server.admin import AdminRequest, AdminResponse
from pywasmproxy.server.log import COMPONENTS
from pywasmproxy.server.view import View, unpacked, view_of
from pywasmproxy.stats.histogram import Histogram
from pywasmproxy.stats.stat import Buckets, Kind, Stat

if TYPE_CHECKING:
    from pywasmproxy.server.proxy import Server

PATIENCE = 1.0
"""Seconds in which another worker must have answered."""

MOST_BYTES = 1 << 26

NOT_FOR_ALL = frozenset(("/quitquitquit", "/reload"))
"""What changes something and is the parent's business."""

COUNTED = frozenset(("/stats", "/stats/prometheus"))
"""What shows the statistics of all."""

VIEWED = frozenset(("/", "/clusters", "/config_dump", "/listeners", "/memory", "/ready", "/server_info"))
"""What shows how all of them are."""

OF_THE_PROXY = ("server.", "listener_manager.", "cluster_manager.", "wasmcustom")
"""Beginnings of names of what is the same in all workers; guests' metrics are those of all already."""

SUMMED = frozenset(
    ("server.memory_physical_size", "server.total_connections", "listener_manager.workers_started")
)
"""But these are not."""


class Peers:
    """The other workers, as one of them sees them."""

    def __init__(self, server: Server, folder: str, index: int, count: int) -> None:
        self._server = server
        self._folder, self._index, self._count = folder, index, count
        self._listening: asyncio.Server | None = None
        #: What the others said last.
        self.stats: list[list[Stat]] = []
        self.views: list[View] = []

    def _path(self, index: int) -> str:
        return os.path.join(self._folder, f"worker-{index}")

    async def start(self) -> None:
        """Answer the others. OSError."""
        path = self._path(self._index)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # a predecessor's
        self._listening = await asyncio.start_unix_server(self._answer, path, limit=MOST_BYTES)

    def close(self) -> None:
        """Answer no more."""
        if self._listening is not None:
            self._listening.close()

    # --- asked ----------------------------------------------------------------------------------------------

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(PATIENCE):
                said = json.loads(await reader.readline())
                writer.write(json.dumps(await self._do(said)).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, said: dict[str, Any]) -> Any:
        from pywasmproxy.server.admin_pages import AdminPages

        if said.get("wanted") == "stats":
            return [_packed(stat) for stat in self._server.measures.all()]
        if said.get("wanted") == "orders":
            levels = {name: int(self._server.log[name].level) for name in COMPONENTS}
            return {"failing": self._server.failing, "levels": levels}
        if said.get("wanted") == "view":
            return view_of(self._server).packed()
        request = AdminRequest(said["method"], said["path"], said["query"])
        response = await AdminPages(self._server).answer(request)
        return [response.body, response.status, response.content_type]

    # --- asking ---------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Take over what the others were told to do so far: this one replaces one of them."""
        for orders in (await self._ask_all({"wanted": "orders"}))[:1]:
            self._server.failing = orders["failing"]
            for component, level in orders["levels"].items():
                self._server.log.set_level(LogLevel(level), component)

    async def before(self, request: AdminRequest, changes: bool) -> None:
        """The admin server is asked for something: what the others have to do with it."""
        if changes:
            if request.path not in NOT_FOR_ALL:
                await self._ask_all(_said(request))
        elif request.path in COUNTED:
            found = await self._ask_all({"wanted": "stats"})
            self.stats = [[_unpacked(one) for one in stats] for stats in found]
        elif request.path in VIEWED:
            self.views = [unpacked(one) for one in await self._ask_all({"wanted": "view"})]

    async def answer_of(self, worker: str, request: AdminRequest) -> AdminResponse | None:
        """What one worker alone answers; None if there is none of that number, or it does not answer."""
        if not worker.isdecimal() or int(worker) >= self._count:
            return None
        found = await self._ask(int(worker), _said(request))
        return None if found is None else AdminResponse(*found)

    async def _ask_all(self, said: dict[str, Any]) -> list[Any]:
        others = [index for index in range(self._count) if index != self._index]
        answers = await asyncio.gather(*(self._ask(index, said) for index in others))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, index: int, said: dict[str, Any]) -> Any:
        """The answer of one; None if there is none."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(self._path(index), limit=MOST_BYTES)
                try:
                    writer.write(json.dumps(said).encode() + b"\n")
                    return json.loads(await reader.readline())
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            self._server.log["admin"].debug(f"worker {index} does not answer: {error!r}")
            return None


def _said(request: AdminRequest) -> dict[str, Any]:
    return {"method": request.method, "path": request.path, "query": request.query}


def _packed(stat: Stat) -> list[Any]:
    value: Any = stat.value
    if isinstance(value, Histogram):
        value = {"filled": [[n, count] for n, count in enumerate(value.buckets) if count], "sum": value.sum}
    elif isinstance(value, Buckets):
        value = [value.bounds, value.cumulative, value.count, value.sum]
    return [stat.name, stat.kind.value, value, stat.short, stat.labels, stat.custom]


def _unpacked(row: list[Any]) -> Stat:
    name, kind, value, short, labels, custom = row
    if isinstance(value, dict):
        histogram = Histogram()
        for n, count in value["filled"]:
            histogram.buckets[n] = count
        histogram.sum = value["sum"]
        value = histogram
    elif isinstance(value, list):
        value = Buckets(tuple(value[0]), tuple(value[1]), value[2], value[3])
    return Stat(name, Kind(kind), value, short, tuple((key, text) for key, text in labels), custom)


def merged(own: Sequence[Stat], others: Iterable[Sequence[Stat]]) -> list[Stat]:
    """The statistics of all workers, in the order of one's own."""
    found = {stat.name: stat for stat in own}
    for stats in others:
        for stat in stats:
            present = found.get(stat.name)
            if present is None:
                found[stat.name] = stat
            elif stat.name in SUMMED or not (
                stat.name.startswith(OF_THE_PROXY) or ".membership_" in stat.name
            ):
                value = _sum(present.value, stat.value)
                found[stat.name] = Stat(
                    stat.name, present.kind, value, present.short, present.labels, present.custom
                )
    return list(found.values())


def _sum(one: int | Histogram | Buckets, other: int | Histogram | Buckets) -> int | Histogram | Buckets:
    if isinstance(one, Histogram) and isinstance(other, Histogram):
        total = Histogram()
        total.buckets = [a + b for a, b in zip(one.buckets, other.buckets, strict=True)]
        total.sum = one.sum + other.sum
        return total
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return one
