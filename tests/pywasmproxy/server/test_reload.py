"""Another configuration while the proxy runs: nothing is lost, nothing stays, what is bad is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import hashlib
import os
import re
import signal
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pywasmproxy.config import load
from pywasmproxy.server import proxy as server_module
from pywasmproxy.server.codec import head_parser
from pywasmproxy.server.plugin_starts import StartError
from pywasmproxy.server.proxy import Proxy, Server
from pywasmproxy.server.reloader import Refused
from pywasmvm.cache.folder import CacheWarning
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
    settled,
    telling,
    upstream,
)
from tests.support.wat import wat

#: Adds `x-guest: <version>:<configuration>` to responses; counts its streams in shared memory of its own. It
#: refuses the configuration `no`, and traps in a request with the configuration `trap`.
GUEST = """(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_define_metric" (func $metric (param i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-guest") (data (i32.const 32) "starts") (data (i32.const 64) "{version}:")
  (global $end (mut i32) (i32.const 66))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 66))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $metric (i32.const 0) (i32.const 32) (i32.const 6) (i32.const 8)))
    (drop (call $increment (i32.load (i32.const 8)) (i64.const 1)))
    (drop (call $buffer (i32.const 7) (i32.const 0) (local.get 1) (i32.const 0) (i32.const 4)))
    (global.set $end (i32.add (i32.const 66) (local.get 1)))
    (i32.ne (i32.load16_u (i32.const 66)) (i32.const 0x6f6e)))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.eq (i32.load (i32.const 66)) (i32.const 0x70617274)) (then (unreachable))) (i32.const 0))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (drop (call $add (i32.const 2) (i32.const 16) (i32.const 7)
      (i32.const 64) (i32.sub (global.get $end) (i32.const 64))))
    (i32.const 0)))"""


def code(version: str = "a") -> bytes:
    return wat(GUEST.replace("{version}", version))


def wasm(
    config: str = "one", *, version: str = "a", file: Path | None = None, env: str = "", vm: str = ""
) -> str:
    source = f'inline_bytes: "{base64.b64encode(code(version)).decode()}"'
    if file is not None:
        source = f'filename: "{file}"'
    return f"""
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: guest
      configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: "{config}"}}
      vm_config:
        runtime: envoy.wasm.runtime.v8
        vm_id: "{vm}"
        environment_variables: {{key_values: {{A: "{env}"}}}}
        code: {{local: {{{source}}}}}
"""


@dataclass
class Configuration:
    """The text of a configuration that changes."""

    text: str
    lines: Lines = field(default_factory=Lines)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        proxy = Proxy(load(self.text), log=self.lines.log(), source=lambda: load(self.text))
        async with proxy.running() as server:
            yield server
            await settled(server)

    async def change(self, server: Server, text: str) -> None:
        self.text = text
        assert server.reloader is not None
        await server.reloader.reload("test")


async def guest_of(server: Server, name: str = "main") -> str | None:
    """What the guest says of itself, on a connection of its own."""
    client = await Client.open(port_of(server, name))
    response = await client.get()
    client.close()
    assert response.status == 200
    return response.one("x-guest")


async def test_plugin_configuration_code_and_environment() -> None:
    async with upstream(hello) as up:

        def text(filters: str) -> str:
            return bootstrap(listener(filters=filters), clusters=cluster(up.port))

        configuration = Configuration(text(wasm("one")))
        async with configuration.running() as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).one("x-guest") == "a:one"
            vms = [server.filters.vms[0]]
            for filters, said in (
                (wasm("two"), "a:two"),
                (wasm("two", version="b"), "b:two"),
                (wasm("two", version="b", vm="other"), "b:two"),
                (wasm("two", version="b", vm="other", env="1"), "b:two"),
                (wasm("two", version="b", vm="other", env="2"), "b:two"),
                ("", None),
                (wasm("three"), "a:three"),
            ):
                await configuration.change(server, text(filters))
                # A connection that was open stays so, and gets the new filter.
                assert (await client.get()).one("x-guest") == said
                assert server.filters.vms == server.filters.registry.vms
                assert all(vm not in vms for vm in server.filters.vms)
                vms += server.filters.vms
            assert len(vms) == 7
            client.close()
    assert configuration.lines.errors() == []


async def test_what_has_not_changed_goes_on_as_it_is() -> None:
    async with upstream(hello) as up:

        def text(*filters: str, route: str = "up") -> str:
            routes = f'- {{match: {{prefix: "/"}}, route: {{cluster: {route}}}}}'
            clusters = cluster(up.port) + cluster(up.port, name="down")
            return bootstrap(listener(routes, filters="".join(filters)), clusters=clusters)

        one, two = wasm("one", vm="1"), wasm("two", vm="2")
        configuration = Configuration(text(one, two))
        async with configuration.running() as server:
            before = {slot.config.vm_id: slot.plugin for slot in server.filters.slots}
            clusters = dict(server.clusters)
            await configuration.change(server, text(two, one, route="down"))
            assert {slot.config.vm_id: slot.plugin for slot in server.filters.slots} == before
            assert server.clusters == clusters
            await configuration.change(server, text(one, wasm("new", vm="2")))
            now = {slot.config.vm_id: slot.plugin for slot in server.filters.slots}
            assert now["1"] is before["1"]
            assert now["2"] is not before["2"]
            # Plugins that share a VM move together, and a dead one is started anew.
            both = text(wasm("one", vm="1"), wasm("two", vm="1"))
            await configuration.change(server, both)
            assert server.filters.slots[0].plugin.vm is server.filters.slots[1].plugin.vm is not now["1"].vm


async def test_a_failed_vm_is_replaced_by_a_reload_of_the_same() -> None:
    async with upstream(hello) as up:
        configuration = Configuration(bootstrap(listener(filters=wasm("trap")), clusters=cluster(up.port)))
        async with configuration.running() as server:
            client = await Client.open(port_of(server))
            assert [(await client.get()).status for _ in range(2)] == [503, 503]
            dead = server.filters.slots[0].plugin
            await configuration.change(server, configuration.text)
            assert server.filters.slots[0].plugin is not dead
            client.close()


@pytest.mark.parametrize(
    "what", ["refusing plugin", "no module", "broken YAML", "taken port", "unknown field"]
)
async def test_a_bad_one_is_refused_with_the_reason_and_the_old_one_stays(what: str) -> None:
    async with upstream(hello) as up:
        good = bootstrap(listener(filters=wasm("one")), clusters=cluster(up.port))
        more = cluster(up.port) + cluster(up.port, name="more")
        bad, reason = {
            "refusing plugin": (wasm("no"), "Unable to create Wasm plugin guest"),
            "no module": (wasm("one").replace('inline_bytes: "', 'inline_bytes: "AAAA'), "Unable to create"),
            "broken YAML": ("{", "<string>:"),
            "taken port": ("", "cannot listen on"),
            "unknown field": (wasm("one").replace("vm_id", "vm_idd"), "vm_idd"),
        }[what]
        listeners = [listener(filters=bad)]
        if what == "taken port":
            listeners.append(listener(name="second", port=up.port))
        configuration = Configuration(good)
        async with configuration.running() as server:
            before = (server.filters.slots, server.bootstrap, dict(server.clusters), server.listeners)
            vms = server.filters.vms
            with pytest.raises(Refused, match=reason):
                await configuration.change(server, bootstrap(*listeners, clusters=more))
            assert (server.filters.slots, server.bootstrap, server.clusters, server.listeners) == before
            assert server.filters.vms == vms
            assert await guest_of(server) == "a:one"
            assert server.reloader is not None
            assert (server.reloader.loaded, server.reloader.refused) == (0, 1)
            assert reason in configuration.lines
            assert "the running configuration stays" in configuration.lines
            await configuration.change(server, bootstrap(listener(filters=wasm("two")), clusters=more))
            assert await guest_of(server) == "a:two"
            assert "more" in server.clusters


async def test_a_start_that_fails_only_the_second_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was tried out is no promise: then what had been started is ended again."""
    async with upstream(hello) as up:
        configuration = Configuration(bootstrap(listener(filters=wasm("one")), clusters=cluster(up.port)))
        async with configuration.running() as server:
            filters = server.filters
            make = filters._make

            def once(config, registry, limits):  # type: ignore[no-untyped-def]
                if config.vm_id == "2":
                    raise StartError("no luck")
                return make(config, registry, limits)

            monkeypatch.setattr(filters, "_make", once)
            two = wasm("two", vm="1") + wasm("two", vm="2")
            with pytest.raises(Refused, match="no luck"):
                await configuration.change(
                    server, bootstrap(listener(filters=two), clusters=cluster(up.port))
                )
            assert await guest_of(server) == "a:one"
            assert len(filters.vms) == 1


async def test_what_is_in_flight_finishes_as_it_began() -> None:
    """Filter, route and cluster of an exchange are those it began with, though they are gone meanwhile."""
    released = asyncio.Event()

    async def slow(visit: Visit) -> None:
        while True:
            await visit.request()
            await released.wait()
            visit.send(answer(b"slow"))

    async with upstream(slow) as old, upstream(telling(b"new")) as new:

        def text(filters: str, name: str, port: int) -> str:
            routes = f'- {{match: {{prefix: "/"}}, route: {{cluster: {name}}}}}'
            return bootstrap(listener(routes, filters=filters), clusters=cluster(port, name=name))

        configuration = Configuration(text(wasm("one"), "old", old.port))
        async with configuration.running() as server:
            waiting = await Client.open(port_of(server))
            waiting.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            while not old.heads:
                await asyncio.sleep(0.01)
            gone = weakref.ref(server.filters.slots[0].plugin.vm)
            cluster_gone = weakref.ref(server.clusters["old"])
            await configuration.change(server, text(wasm("two"), "new", new.port))
            assert list(server.clusters) == ["new"]
            other = await Client.open(port_of(server))
            response = await other.get()
            assert (response.body, response.one("x-guest")) == (b"new", "a:two")
            assert len(server.filters.vms) == 2
            released.set()
            response = await waiting.response()
            assert (response.body, response.one("x-guest")) == (b"slow", "a:one")
            assert len(server.filters.vms) == 1
            response = await waiting.get()
            assert (response.body, response.one("x-guest")) == (b"new", "a:two")
            waiting.close()
            other.close()
            for _ in range(50):
                await asyncio.sleep(0.05)
                gc.collect()
                if gone() is cluster_gone() is None:
                    break
            assert gone() is cluster_gone() is None


async def test_listeners_come_and_go() -> None:
    async with upstream(hello) as up:
        clusters = cluster(up.port)
        tcp = """
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: test
          cluster: up
"""
        configuration = Configuration(bootstrap(listener(), listener(name="second"), clusters=clusters))
        async with configuration.running() as server:
            first, second = port_of(server), port_of(server, "second")
            idle = await Client.open(second)
            await idle.get()
            await configuration.change(
                server, bootstrap(listener(name="third"), listener(filters=wasm("x")), clusters=clusters)
            )
            assert (port_of(server), list(server.addresses)) == (first, ["third", "main"])
            assert await guest_of(server, "third") is None
            assert await guest_of(server) == "a:x"
            assert await idle.closed()
            idle.close()
            with pytest.raises(ConnectionRefusedError):
                await Client.open(second)
            # Another kind of listener takes the port over.
            open_ = await Client.open(first)
            await open_.get()
            await configuration.change(server, bootstrap(tcp.format(name="main", port=0), clusters=clusters))
            assert port_of(server) == first
            assert await open_.closed()
            open_.close()
            assert await guest_of(server) is None
            assert server.dropped == set()


async def test_thirty_reloads_under_load() -> None:
    """No request fails; old VMs are collected; the tables that grow with a configuration do not."""
    requests, clients, reloads = 5_000, 8, 30
    async with upstream(hello) as up:

        def text(number: int) -> str:
            filters = wasm(f"c{number}", version="ab"[number % 2], vm=str(number % 3))
            return bootstrap(listener(filters=filters), clusters=cluster(up.port))

        configuration = Configuration(text(0))
        async with configuration.running() as server:
            done = [0] * clients
            seen: set[str | None] = set()

            async def work(which: int) -> None:
                client = await Client.open(port_of(server))
                for _ in range(requests // clients):
                    response = await client.get()
                    assert (response.status, response.body) == (200, b"Hello World!")
                    seen.add(response.one("x-guest"))
                    done[which] += 1
                client.close()

            tasks = [asyncio.create_task(work(which)) for which in range(clients)]
            vms = [weakref.ref(server.filters.vms[0])]
            for number in range(1, reloads + 1):
                while sum(done) < requests * number // (reloads + 2):
                    await asyncio.sleep(0.005)
                await configuration.change(server, text(number))
                vms.append(weakref.ref(server.filters.slots[0].plugin.vm))
            await asyncio.gather(*tasks)
            await settled(server)
            server.filters.guest_ran()
            assert sum(done) == requests
            assert len(seen) >= reloads
            assert None not in seen
            assert await guest_of(server) == f"a:c{reloads}"
            gc.collect()
            assert [vm() is not None for vm in vms] == [False] * reloads + [True]
            filters = server.filters
            assert (len(filters.vms), len(filters.starts.modules), len(filters.successors.lives)) == (1, 1, 1)
            assert (len(server.clusters), len(filters.successors.retired), filters.ticks.timers) == (1, 0, {})
            # Memory stays flat: after as many reloads again there are as many objects as before.
            configuration.lines.text.clear()
            counts = []
            for number in range(20):
                await configuration.change(server, text(number))
                assert await guest_of(server) == f"a:c{number}".replace("a", "ab"[number % 2], 1)
                await settled(server)
                server.filters.guest_ran()
                configuration.lines.text.clear()
                gc.collect()
                counts.append(len(gc.get_objects()))
            assert counts[-1] - counts[-11] < 200
    assert configuration.lines.errors() == []


class TestWatch:
    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pywasmproxy.server import reloader

        monkeypatch.setattr(reloader, "LOOK_EVERY", 0.02)

    @contextlib.asynccontextmanager
    async def running(self, folder: Path, lines: Lines, port: int) -> AsyncIterator[Server]:
        (folder / "filter.wasm").write_bytes(code("a"))
        self.write(folder, "one", port)
        proxy = Proxy.from_file(folder / "envoy.yaml", log=lines.log(), watch=True)
        async with proxy.running() as server:
            yield server
            await settled(server)

    def write(self, folder: Path, config: str, port: int) -> None:
        filters = wasm(config, file=folder / "filter.wasm")
        text = bootstrap(listener(filters=filters), clusters=cluster(port))
        (folder / "envoy.yaml").write_text(text)

    async def until(self, server: Server, said: str) -> None:
        async with asyncio.timeout(20):
            while await guest_of(server) != said:
                await asyncio.sleep(0.02)

    async def test_files(self, tmp_path: Path) -> None:
        lines = Lines()
        async with upstream(hello) as up, self.running(tmp_path, lines, up.port) as server:
            await self.until(server, "a:one")
            (tmp_path / "filter.wasm").write_bytes(code("b"))
            await self.until(server, "b:one")
            self.write(tmp_path, "two", up.port)
            await self.until(server, "b:two")
            # Replaced by another file, as package managers and editors do.
            (tmp_path / "new").write_bytes(code("c"))
            (tmp_path / "filter.wasm").unlink()
            await asyncio.sleep(0.1)
            os.replace(tmp_path / "new", tmp_path / "filter.wasm")
            await self.until(server, "c:two")
            assert lines.errors() == []
            (tmp_path / "filter.wasm").write_bytes(code("d")[:-10])
            async with asyncio.timeout(20):
                while "refused" not in lines:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            assert sum("refused" in line for line in lines.errors()) == 1
            assert await guest_of(server) == "c:two"
            (tmp_path / "filter.wasm").write_bytes(code("d"))
            await self.until(server, "d:two")
            assert server.reloader is not None
            assert (server.reloader.loaded, server.reloader.refused) == (4, 1)

    async def test_nothing_is_loaded_that_has_not_changed(self, tmp_path: Path) -> None:
        async with upstream(hello) as up, self.running(tmp_path, Lines(), up.port) as server:
            await asyncio.sleep(0.3)
            assert server.reloader is not None
            assert (server.reloader.loaded, server.reloader.refused) == (0, 0)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
async def test_sighup(tmp_path: Path) -> None:
    lines, path = Lines(), tmp_path / "envoy.yaml"
    async with upstream(hello) as up:

        def write(config: str) -> None:
            path.write_text(bootstrap(listener(filters=wasm(config)), clusters=cluster(up.port)))

        write("one")
        proxy = Proxy.from_file(path, log=lines.log())
        serving = asyncio.create_task(proxy.serve())
        async with asyncio.timeout(10):
            while "starting main dispatch loop" not in lines:
                await asyncio.sleep(0.01)
            write("two")
            os.kill(os.getpid(), signal.SIGHUP)
            while "loaded anew" not in lines:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving


class TestRemoteCode:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("PYWASMVM_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(server_module, "FETCH_AGAIN", 0.05)
        return tmp_path / "cache"

    def text(self, port: int, *, code_port: int, digest: str, config: str = "one", more: str = "") -> str:
        uri = "{uri: 'http://code.test/f.wasm?v=1', cluster: code, timeout: 0.5s}"
        retries = "{num_retries: 2, retry_back_off: {base_interval: 0.01s}}"
        remote = f"{{remote: {{http_uri: {uri}, sha256: {digest}, retry_policy: {retries}}}}}"
        filters = re.sub(r"code: .*", lambda _: f"code: {remote}", wasm(config)).replace(
            "      name: guest\n", f"      name: guest\n      {more}\n"
        )
        clusters = cluster(port) + cluster(code_port, name="code")
        return bootstrap(listener(filters=filters), clusters=clusters)

    async def test_it_is_fetched_once(self, cache: Path) -> None:
        digest = hashlib.sha256(code()).hexdigest()
        async with upstream(hello) as up, upstream(telling(code())) as library:
            configuration = Configuration(self.text(up.port, code_port=library.port, digest=digest))
            async with configuration.running() as server:
                assert await guest_of(server) == "a:one"
                [head] = library.heads
                assert head.startswith(b"GET /f.wasm?v=1 HTTP/1.1\r\nhost: code.test\r\n")
                await configuration.change(
                    server, self.text(up.port, code_port=library.port, digest=digest, config="two")
                )
                assert await guest_of(server) == "a:two"
            # A later process has it on disk; a damaged file is not used.
            async with configuration.running() as server:
                assert await guest_of(server) == "a:two"
            assert len(library.heads) == 1
            for file in cache.iterdir():
                file.write_bytes(file.read_bytes()[:-1])
            with pytest.warns(CacheWarning):
                async with configuration.running() as server:
                    assert await guest_of(server) == "a:two"
            assert len(library.heads) == 2

    @pytest.mark.parametrize("how", ["500", "other code", "slow", "broken off", "no host"])
    async def test_without_it_the_plugin_fails_and_it_is_asked_for_again(self, how: str) -> None:
        digest, better = hashlib.sha256(code()).hexdigest(), asyncio.Event()

        async def handler(visit: Visit) -> None:
            while True:
                await visit.request()
                if better.is_set():
                    visit.send(answer(code()))
                elif how == "500":
                    visit.send(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
                elif how == "other code":
                    visit.send(answer(code("b")))
                elif how == "slow":
                    await asyncio.sleep(0.7)
                    return
                else:
                    visit.send(answer(code())[:-20])
                    return

        async with upstream(hello) as up, upstream(handler) as library:
            port = library.port if how != "no host" else 1
            text = self.text(up.port, code_port=port, digest=digest)
            configuration = Configuration(text)
            async with configuration.running() as server:
                client = await Client.open(port_of(server))
                assert (await client.get()).status == 503
                lines = configuration.lines
                assert "Plugin guest configured to fail closed" in lines or "fail closed" in lines
                assert "Failed to fetch remote code from http://code.test/f.wasm?v=1" in lines
                reason = {
                    "500": "the answer is 500",
                    "other code": f"not {digest}",
                    "slow": "no answer within 0.5 s",
                    "broken off": "attempt 3 failed",
                    "no host": "attempt 3 failed",
                }[how]
                assert reason in lines
                if how not in ("500", "other code"):
                    client.close()
                    return
                better.set()
                async with asyncio.timeout(20):
                    while (response := await client.get()).status != 200:
                        await asyncio.sleep(0.02)
                assert response.one("x-guest") == "a:one"
                client.close()

    async def test_fail_open_leaves_it_out(self) -> None:
        async with upstream(hello) as up:
            text = self.text(up.port, code_port=1, digest="0" * 64, more="failure_policy: FAIL_OPEN")
            async with Configuration(text).running() as server:
                assert await guest_of(server) is None

    async def test_a_reload_without_it_is_refused(self) -> None:
        async with upstream(hello) as up, upstream(telling(code())) as library:
            good = self.text(up.port, code_port=library.port, digest=hashlib.sha256(code()).hexdigest())
            configuration = Configuration(good)
            async with configuration.running() as server:
                with pytest.raises(Refused, match="could not be fetched"):
                    await configuration.change(
                        server, self.text(up.port, code_port=library.port, digest="0" * 64)
                    )
                assert await guest_of(server) == "a:one"

    async def test_the_check_fetches_it(self) -> None:
        async with upstream(telling(code())) as library:
            for digest, good in ((hashlib.sha256(code()).hexdigest(), True), ("0" * 64, False)):
                text = self.text(1, code_port=library.port, digest=digest)
                server = Server(load(text), Lines().log(), head_parser(None))
                with contextlib.nullcontext() if good else pytest.raises(StartError):
                    await server.check()
