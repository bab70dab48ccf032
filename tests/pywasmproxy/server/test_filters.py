"""Wasm plugins inside the running proxy: failures stay where they belong, ticks run, leaks are stopped."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from abi.proxy_wasm.vm import Vm
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.proxy import Proxy
from tests.pywasmproxy.server.guests import wasm_filter
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Visit,
    answer,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    upstream,
)

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200}}'


async def statuses(port: int, count: int) -> list[int]:
    """Each request on a connection of its own."""
    out = []
    for _ in range(count):
        client = await Client.open(port)
        out.append((await client.get()).status)
        client.close()
    return out


async def test_a_filter_changes_the_response() -> None:
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("mark")), clusters=cluster(up.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            for _ in range(3):
                response = await client.get()
                assert response.all("x-guest") == ["yes"]
                assert response.body == b"Hello World!"
            client.close()


@pytest.mark.parametrize("name", ["trap", "recurse", "loop"])
async def test_failures_cost_their_own_requests(name: str) -> None:
    lines = Lines()
    async with upstream(hello) as up:
        text = bootstrap(
            listener(filters=wasm_filter(name)),
            listener(name="healthy", filters=wasm_filter("mark")),
            clusters=cluster(up.port),
            node="{metadata: {pywasmvm: {callback_time: 300ms}}}",
        )
        async with proxy(text, log=lines.log()) as server:
            healthy = await Client.open(port_of(server, "healthy"))
            assert (await healthy.get()).status == 200
            assert await statuses(port_of(server), 3) == [503, 503, 503]
            response = await healthy.get()
            assert (response.status, response.one("x-guest")) == (200, "yes")
            healthy.close()
        assert not up.heads[2:]
    reports = [line for line in lines.text if "Function: proxy_on_request_headers failed: Uncaught" in line]
    assert len(reports) == 1  # later requests never reach the guest


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ("", [503, 503, 503]),
        ("failure_policy: FAIL_CLOSED", [503, 503, 503]),
        ("failure_policy: FAIL_OPEN", [503, 200, 200]),
        ("fail_open: true", [200, 200, 200]),
    ],
)
async def test_failure_policies(more: str, wanted: list[int]) -> None:
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("trap", more=more)), clusters=cluster(up.port))
        async with proxy(text) as server:
            assert await statuses(port_of(server), 3) == wanted


async def test_fail_reload_starts_a_fresh_vm_after_the_back_off() -> None:
    more = "failure_policy: FAIL_RELOAD\n      reload_config: {backoff: {base_interval: 0.1s}}"
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("trap", more=more)), clusters=cluster(up.port))
        async with proxy(text) as server:
            first = server.filters.vms[0]
            assert await statuses(port_of(server), 2) == [503, 503]
            await asyncio.sleep(0.15)
            assert await statuses(port_of(server), 1) == [503]
            assert server.filters.vms[0] is not first


@pytest.mark.parametrize("where", ["memory", "FOLDER"])
async def test_a_vm_starts_from_the_snapshot_of_the_one_before(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Vm] = []
    initialize = Vm._initialize

    def counted(vm: Vm) -> None:
        started.append(vm)
        initialize(vm)

    monkeypatch.setattr(Vm, "_initialize", counted)
    more = "failure_policy: FAIL_RELOAD\n      reload_config: {backoff: {base_interval: 0.1s}}"
    folder = where.replace("FOLDER", str(tmp_path / "snapshots"))
    async with upstream(hello) as up:
        text = bootstrap(
            listener(filters=wasm_filter("once", more=more)),
            clusters=cluster(up.port),
            node=f"{{metadata: {{pywasmvm: {{snapshots: '{folder}'}}}}}}",
        )
        async with proxy(text) as server:
            first = server.filters.vms[0]
            client = await Client.open(port_of(server))
            assert (await client.get()).all("x-guest") == ["a l"]
            client.close()
            assert await statuses(port_of(server), 1) == [503]
            await asyncio.sleep(0.15)
            client = await Client.open(port_of(server))
            assert (await client.get()).all("x-guest") == ["a l"]
            client.close()
            assert server.filters.vms[0] is not first
            assert started == [first]
        async with proxy(text) as server:
            assert await statuses(port_of(server), 1) == [200]
            assert len(started) == (2 if where == "memory" else 1)


async def test_why_there_is_no_snapshot_is_logged() -> None:
    lines = Lines()
    text = bootstrap(
        listener(DIRECT, filters=wasm_filter("unkept")),
        node="{metadata: {pywasmvm: {snapshots: memory}}}",
    )
    async with proxy(text, log=lines.log()) as server:
        assert await statuses(port_of(server), 1) == [200]
    assert "no snapshot is made: global 2 holds a reference to an object" in lines


async def test_a_trap_behind_the_head_cuts_the_response_off() -> None:
    async def chunks(visit: Visit) -> None:
        await visit.request()
        visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    async with upstream(chunks) as up:
        text = bootstrap(listener(filters=wasm_filter("trap_late")), clusters=cluster(up.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.complete) == (200, False)
            assert await client.closed()


async def test_a_tick_lets_a_paused_request_go_on() -> None:
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("wait")), clusters=cluster(up.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            response = await client.get()
            assert (response.status, response.one("x-guest")) == (200, "yes")
            client.close()
            assert not server.filters.ticks.timers  # the guest has stopped its timer


async def test_a_trap_in_a_tick_answers_who_waits() -> None:
    lines = Lines()
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("wait_and_trap")), clusters=cluster(up.port))
        async with proxy(text, log=lines.log()) as server:
            assert await statuses(port_of(server), 2) == [503, 503]
            assert not server.filters.ticks.timers
    assert "Function: proxy_on_tick failed" in lines


async def test_a_fault_of_ours_in_a_tick_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("wait")), clusters=cluster(up.port))
        async with proxy(text, log=lines.log()) as server:

            def broken(plugin: object) -> None:
                raise ZeroDivisionError("a bug")

            monkeypatch.setattr(server.filters.dispatcher, "tick", broken)
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            async with asyncio.timeout(3):
                while "ZeroDivisionError: a bug" not in lines:
                    await asyncio.sleep(0.01)
            client.abort()


async def test_client_leaves_a_request_that_is_paused_for_ever() -> None:
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("pause")), clusters=cluster(up.port))
        async with proxy(text) as server:
            client = await Client.open(port_of(server))
            client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            assert server.streams == 1
            client.close()
        assert up.visits == 0


async def test_a_leaking_guest_gets_a_successor() -> None:
    """64 pages may be used; beyond half of them a fresh VM takes over, and the old one is freed."""
    lines = Lines()
    async with upstream(hello) as up:
        text = bootstrap(
            listener(filters=wasm_filter("leak")),
            clusters=cluster(up.port),
            node="{metadata: {pywasmvm: {memory_pages: 64, recycle_memory_share: 50%}}}",
        )
        async with proxy(text, log=lines.log()) as server:
            first = weakref.ref(server.filters.vms[0])
            client = await Client.open(port_of(server))
            for _ in range(200):
                response = await client.get()
                assert (response.status, response.all("x-guest")) == (200, ["yes"])
            client.close()
            assert len(server.filters.vms) == 1
            assert server.filters.guest_memory <= 33 * 65536
            gc.collect()
            assert first() is None
    assert len([line for line in lines.text if "a fresh one takes over" in line]) >= 4
    assert lines.errors() == []


async def test_streams_in_flight_finish_on_the_old_vm() -> None:
    release = asyncio.Event()

    async def slow(visit: Visit) -> None:
        while True:
            head, _ = await visit.request()
            if b"/slow" in head:
                await release.wait()
            visit.send(answer())

    async with upstream(slow) as up:
        text = bootstrap(
            listener(filters=wasm_filter("mark") + wasm_filter("farewell")),
            clusters=cluster(up.port),
            node="{metadata: {pywasmvm: {recycle_streams: 3}}}",
        )
        lines = Lines()
        async with proxy(text, log=lines.log()) as server:
            waiting = await Client.open(port_of(server))
            waiting.send(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.sleep(0.05)
            assert await statuses(port_of(server), 2) == [200, 200]
            assert len(server.filters.vms) == 4  # two old, two new
            release.set()
            response = await waiting.response()
            assert (response.status, response.one("x-guest")) == (200, "yes")
            waiting.close()
            await asyncio.sleep(0.02)
            assert len(server.filters.vms) == 2


async def test_a_successor_that_cannot_start_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from abi.proxy_wasm.failures import PluginStartError

    lines = Lines()
    async with upstream(hello) as up:
        text = bootstrap(
            listener(filters=wasm_filter("mark")),
            clusters=cluster(up.port),
            node="{metadata: {pywasmvm: {recycle_streams: 2}}}",
        )
        async with proxy(text, log=lines.log()) as server:

            def refuse(*_: object) -> None:
                raise PluginStartError("no luck", [])

            with monkeypatch.context() as patch:
                patch.setattr(server.filters, "_make", refuse)
                assert await statuses(port_of(server), 3) == [200, 200, 200]
            assert await statuses(port_of(server), 3) == [200, 200, 200]
    assert "no successor: no luck" in lines


async def test_plugins_with_one_vm_id_share_a_vm() -> None:
    async with upstream(hello) as up:
        filters = wasm_filter("mark", plugin="one", vm_id="v") + wasm_filter("mark", plugin="two", vm_id="v")
        async with proxy(bootstrap(listener(filters=filters), clusters=cluster(up.port))) as server:
            assert len(server.filters.vms) == 1
            client = await Client.open(port_of(server))
            assert (await client.get()).all("x-guest") == ["yes", "yes"]
            client.close()


@pytest.mark.parametrize(
    ("runtime", "lines"),
    [
        (
            "nosuch",
            [
                "Failed to create Wasm VM using envoy.wasm.runtime.nosuch runtime. "
                "Envoy was compiled without support for it",
                "Wasm VM failed Failed to load Wasm code",
            ],
        ),
        ("null", ["Wasm VM failed Failed to load NullVM plugin", "Wasm VM failed Failed to load Wasm code"]),
    ],
)
async def test_unknown_runtimes(runtime: str, lines: list[str]) -> None:
    log = Lines()
    one = Proxy.from_text(
        bootstrap(listener(DIRECT, filters=wasm_filter("mark", runtime=runtime))), log=log.log()
    )
    with pytest.raises(StartError, match="Unable to create Wasm plugin mark"):
        async with one.running():
            pass
    said = [line.split("] ", 2)[-1].strip() for line in log.text if "[wasm]" in line]
    assert said == [
        *lines,
        "Plugin mark failed to load",
        "Plugin configured to fail closed failed to load",
    ]


@pytest.mark.parametrize("more", ["", "failure_policy: FAIL_OPEN", "fail_open: true"])
def test_a_refused_start_is_fatal_under_every_policy(more: str) -> None:
    log = Lines()
    one = Proxy.from_text(
        bootstrap(listener(DIRECT, filters=wasm_filter("refuse", more=more))), log=log.log()
    )
    with pytest.raises(StartError, match="Unable to create Wasm plugin refuse"):
        one.check()
    assert "Wasm VM failed Failed to configure base Wasm plugin" in log
    assert "Plugin refuse failed to load" in log
    assert ("Plugin configured to fail closed failed to load" in log) is (more != "fail_open: true")


def test_check_starts_and_ends_the_plugins() -> None:
    log = Lines()
    Proxy.from_text(bootstrap(listener(DIRECT, filters=wasm_filter("farewell"))), log=log.log()).check()
    assert "wasm log: a line" in log


async def test_an_exchange_leaves_nothing_for_the_garbage_collector() -> None:
    """Memory must not depend on when the collector comes by: no reference cycles, with or without guests."""
    async with upstream(hello) as up:
        text = bootstrap(
            listener(filters=wasm_filter("mark")), listener(name="plain"), clusters=cluster(up.port)
        )
        async with proxy(text) as server:
            for name in "main", "plain":
                client = await Client.open(port_of(server, name))
                await client.get()
                gc.collect()
                gc.disable()
                gc.set_debug(gc.DEBUG_SAVEALL)
                try:
                    for _ in range(5):
                        await client.get()
                    gc.collect()
                    left = [one for one in gc.garbage if type(one).__module__.startswith(("pywasm", "abi"))]
                finally:
                    gc.set_debug(0)
                    gc.garbage.clear()
                    gc.enable()
                assert left == []
                client.close()
