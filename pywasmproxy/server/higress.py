"""What Higress' guests ask for (`abi.higress`), carried out: Redis calls over connections of the clusters'
hosts.

A connection per plugin and cluster, opened with the first call: it logs in, selects the database, and carries
all calls in order (pipelining), so the answers come in order. A connection on which something went wrong - no
answer in time, bytes that are none - is closed, because nobody knows any more whose answer comes next; all
calls on it fail, as in Higress, and the next call opens another one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from abi.higress import (
    InjectBody,
    KeepRoute,
    LimitBuffer,
    OverrideHost,
    RedisCall,
    RedisInit,
    answered,
    failed,
)
from abi.proxy_wasm.deferred import CallOut, StreamEffect
from abi.proxy_wasm.vm import Vm
from pywasmproxy.sansio.dispatcher import StreamAction
from pywasmproxy.sansio.filter import FilterCallbacks
from pywasmproxy.server.callouts import MAX_COLLECTED, CallOuts, Starter
from pywasmproxy.server.patience import PatientTimer
from pywasmproxy.server.resp import Replies, RespError


def command(*words: bytes) -> bytes:
    """One command of Redis."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class RedisClient:
    """All that one plugin has to do with one cluster: begun and set up by `RedisInit`, for as long as the
    plugin lives."""

    def __init__(self, effect: RedisInit, outs: CallOuts) -> None:
        self.outs, self.settings = outs, effect
        self._connection: _Connection | None = None
        outs.keep(RedisClients, RedisClients).clients[effect.plugin.vm, effect.token] = self

    @property
    def timeout(self) -> float:
        """Seconds for a connection, and for each answer; 0 is no limit."""
        return self.settings.timeout_ms / 1000

    def perform(self, effect: CallOut) -> None:
        """Log in differently from now on. Calls on the old connection fail, as in Higress."""
        if isinstance(effect, RedisInit):
            self.settings = effect
            self.close("it was set up anew")

    def send(self, run: RedisCallRun) -> None:
        """Send a call, on the connection that there is or a new one."""
        if self._connection is None or self._connection.lost:
            self._connection = _Connection(self)
        self._connection.send(run.effect.query, run)

    def cancel(self) -> None:
        """The plugin has ended, or its VM."""
        place = self.settings.plugin.vm, self.settings.token
        self.outs.keep(RedisClients, RedisClients).clients.pop(place, None)
        self.close("the plugin has ended")

    def close(self, why: str) -> None:
        """Close the connection; its calls fail."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.fail(why)


class _Connection(asyncio.Protocol):
    """One connection, from its opening to its loss. `lost`: no call can be sent on it any more."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._replies = Replies()
        self._counted = 0  # of its bytes in `CallOuts.collected`
        self._out: list[bytes] = []  # until it is open
        self._waiting: deque[tuple[RedisCallRun | None, float]] = deque()
        self._timer: PatientTimer | None = None
        self._loop = asyncio.get_running_loop()
        self.lost = False
        self._log_in()
        self._task = self._loop.create_task(self._open())

    def _log_in(self) -> None:
        settings = self._client.settings
        if settings.password:
            words = (settings.user, settings.password) if settings.user else (settings.password,)
            self.send(command(b"AUTH", *words), None)
        if settings.database is not None:
            self.send(command(b"SELECT", b"%d" % settings.database), None)

    async def _open(self) -> None:
        client = self._client
        host = client.outs.clusters[client.settings.cluster].hosts.pick()
        if host is None:
            self.fail("the cluster has no hosts")
            return
        try:
            await self._loop.create_connection(lambda: self, host.host, host.port)
        except OSError as error:
            self.fail(f"cannot connect to {host}: {error}")

    # --- the calls' side ------------------------------------------------------------------------------------

    def send(self, query: bytes, run: RedisCallRun | None) -> None:
        """Send a command; `run` gets the reply, nobody when it is None."""
        self._waiting.append((run, self._loop.time()))
        if self._transport is None:
            self._out.append(query)
        else:
            self._transport.write(query)
        if self._timer is None:
            self._watch()

    def fail(self, why: str) -> None:
        """Close, and fail all calls that wait."""
        if self.lost:
            return
        self.lost = True
        self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._client.outs.collected -= self._counted
        self._counted = 0
        self._out.clear()
        waiting, self._waiting = self._waiting, deque()
        outs, cluster = self._client.outs, self._client.settings.cluster
        if waiting:
            outs.logger.debug(f"redis cluster {cluster}: {why}")
        for run, _ in waiting:
            if run is not None:
                self._loop.call_soon(run.failed)

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.lost:
            self._transport.abort()
            return
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        try:
            replies = self._replies.feed(data)
        except RespError as error:
            self.fail(f"what came is no reply: {error}")
            return
        for reply in replies:
            if self.lost:
                return
            if not self._waiting:
                self.fail("a reply that nobody asked for")
                return
            run, _ = self._waiting.popleft()
            if run is not None:
                run.answered(reply)
            elif reply[:1] == b"-":
                text = reply[1:200].decode("utf-8", "backslashreplace").strip()
                self._client.outs.logger.warning(f"redis cluster {self._client.settings.cluster}: {text}")
        if self.lost:
            return
        outs = self._client.outs
        outs.collected += self._replies.held - self._counted
        self._counted = self._replies.held
        if outs.collected > MAX_COLLECTED:
            self.fail("more than all answers together may take")

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail("the connection broke")

    # --- time -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for the oldest call's time to be over."""
        timeout = self._client.timeout
        if timeout and self._waiting:
            left = self._waiting[0][1] + timeout - self._loop.time()
            self._timer = PatientTimer(max(left, 0.001), self._due)

    def _due(self) -> None:
        self._timer = None
        if self._waiting and self._loop.time() >= self._waiting[0][1] + self._client.timeout:
            self.fail("no answer in time")
        else:
            self._watch()


class RedisClients:
    """All clients of one proxy, by VM and token; kept by `CallOuts`."""

    def __init__(self) -> None:
        self.clients: dict[tuple[Vm, int], RedisClient] = {}

    def close(self) -> None:
        for client in self.clients.values():
            client.close("the proxy ends")


class RedisCallRun:
    """One call under way."""

    def __init__(self, effect: RedisCall, outs: CallOuts) -> None:
        self.effect, self._outs = effect, outs
        self._over = False
        client = outs.keep(RedisClients, RedisClients).clients.get((effect.plugin.vm, effect.session))
        if client is None:
            asyncio.get_running_loop().call_soon(self.failed)
        else:
            client.send(self)

    def perform(self, effect: CallOut) -> None:
        """Nothing more can be said about a call that is under way."""

    def cancel(self) -> None:
        """The reply, which must still be waited for, goes nowhere."""
        self._over = True

    def answered(self, reply: bytes) -> None:
        """The reply is here."""
        self._end(lambda: answered(self.effect.plugin, self.effect.token, reply))

    def failed(self) -> None:
        """There will be none."""
        self._end(lambda: failed(self.effect.plugin, self.effect.token))

    def _end(self, callback: Callable[[], object]) -> None:
        if not self._over:
            self._over = True
            self._outs.answer(self.effect, callback)


def _inject(callbacks: FilterCallbacks, effect: InjectBody) -> None:
    callbacks.inject_response_body(bytes(effect.data), effect.end_of_stream)


def _override_host(callbacks: FilterCallbacks, effect: OverrideHost) -> None:
    callbacks.override_host(effect.address)


def _keep_route(callbacks: FilterCallbacks, effect: KeepRoute) -> None:
    callbacks.keep_route(effect.headers)


def _limit_buffer(callbacks: FilterCallbacks, effect: LimitBuffer) -> None:
    callbacks.limit_buffer(effect.stream_type, effect.size)


STARTERS: Mapping[type[CallOut], Starter] = {RedisInit: RedisClient, RedisCall: RedisCallRun}

ACTIONS: Mapping[type[StreamEffect], StreamAction] = {
    InjectBody: _inject,
    KeepRoute: _keep_route,
    LimitBuffer: _limit_buffer,
    OverrideHost: _override_host,
}
