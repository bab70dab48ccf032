"""Several workers on real sockets: killed, told to end, orphaned, refused; what they share stays whole."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from abi.proxy_wasm.store import Store
from abi.proxy_wasm.types import Status
from pywasmproxy import run
from pywasmproxy.server import workers
from pywasmproxy.stores import open_store
from tests.pywasmproxy.server.guests import guest, wasm_filter
from tests.pywasmproxy.server.serving import ADMIN, DIRECT, AdminClient, Start, clients_of_both
from tests.pywasmproxy.server.support import Client, Visit, answer, bootstrap, cluster, listener, upstream
from tests.support.certificates import Authority
from tests.support.wat import wat

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(not workers.possible(), reason="this system cannot fork")

COUNTING = """
(module
  (import "env" "proxy_get_shared_data" (func $get (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
  (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "nqta line")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  ;; Adds one to the number under a key; traps when that is refused.
  (func $add (param $key i32) (local $status i32)
    (loop $again
      (if (call $get (local.get $key) (i32.const 1) (i32.const 128) (i32.const 132) (i32.const 136))
        (then (unreachable)))
      (i32.store (i32.const 256)
        (i32.add (i32.load (i32.load (i32.const 128))) (i32.const 1)))
      (local.set $status (call $set (local.get $key) (i32.const 1) (i32.const 256) (i32.const 4)
        (i32.load (i32.const 136))))
      (br_if $again (i32.eq (local.get $status) (i32.const 8)))
      (if (local.get $status) (then (unreachable)))))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (i32.eqz (call $register (i32.const 17) (i32.const 1) (i32.const 200))))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (call $add (i32.const 16))
    (if (call $enqueue (i32.load (i32.const 200)) (i32.const 256) (i32.const 4)) (then (unreachable)))
    (i32.const 0))
  (func (export "proxy_on_queue_ready") (param i32 i32) %s))
"""

SAYING = "(drop (call $log (i32.const 2) (i32.const 19) (i32.const 6)))"

TAKING = """(if (i32.eqz (call $dequeue (local.get 1) (i32.const 128) (i32.const 132)))
  (then (call $add (i32.const 18))))"""


@cache
def counting(told: str) -> str:
    """A filter that counts requests in shared data and in a queue; `told` is what it does when told of it."""
    code = base64.b64encode(wat(COUNTING % told)).decode()
    return wasm_filter("mark", plugin="counting", vm_id="V").replace(
        wasm_filter("mark").split('inline_bytes: "')[1].split('"')[0], code
    )


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()  # nobody may be there to reap it
    except OSError:
        return os.path.isdir("/proc/self")  # without /proc: it answers, so it is there


def gone(*pids: int) -> bool:
    """Whether all of these processes end."""
    end = time.monotonic() + 15
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


# --- load ---------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Clients that ask on and on, each on a connection that it keeps; what they got."""

    port: int
    statuses: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    """Ports, on the clients' side, of connections that broke while an answer was waited for."""
    enough: bool = False

    async def client(self) -> None:
        while not self.enough:
            one = await Client.open(self.port)
            mine = one.writer.get_extra_info("sockname")[1]
            try:
                while not self.enough:
                    self.statuses.append((await one.get()).status)
            except (EOFError, ConnectionError):
                self.failed.append(mine)
            finally:
                one.close()

    @contextlib.asynccontextmanager
    async def of(self, count: int) -> AsyncIterator[Load]:
        tasks = [asyncio.create_task(self.client()) for _ in range(count)]
        try:
            yield self
            self.enough = True
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
        finally:
            for task in tasks:
                task.cancel()

    async def more(self, count: int) -> None:
        """Until so many more requests were answered."""
        wanted = len(self.statuses) + count
        async with asyncio.timeout(30):
            while len(self.statuses) < wanted:
                await asyncio.sleep(0.01)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store that outlives the proxy, with the numbers that the guest counts in."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'store'}"
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in server.stdout or ():
        if "Ready to accept connections" in line:
            break
    yield f"redis://127.0.0.1:{port}/0"
    server.kill()
    server.communicate()


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    one = open_store(address)
    for key in (b"n", b"t"):
        assert one.set(b"V", key, bytes(4), 0) is Status.OK
    yield one
    one.close()


def number(store: Store, key: bytes) -> int:
    found = store.get(b"V", key)
    assert found is not None
    return int.from_bytes(found[0], "little")


def left(store: Store) -> int:
    """How many items are in the queue; they are taken out."""
    token = store.resolve(b"V", b"q")
    assert token is not None
    count = 0
    while isinstance(store.dequeue(token), bytes):
        count += 1
    return count


@pytest.mark.slow
async def test_kill_9_under_load(start: Start, store: Store, address: str) -> None:
    serving = start(bootstrap(listener(DIRECT, filters=counting(SAYING))), "--store", address)
    load, killed, seconds = Load(serving.port), set(), []
    async with load.of(8):
        await load.more(50)
        for index, life in ((0, 1), (1, 1), (0, 2)):
            killed.add(serving.worker(index, life))
            seconds.append(await asyncio.to_thread(serving.kill, index, life))
            await load.more(50)
    assert serving.end() == 0
    # Nothing failed but what a killed worker had in hand ...
    assert set(load.statuses) == {200}
    worker_of = {
        int(found[2]): int(found[1])
        for found in serving.find(r"\[(\d+)\]\[debug\]\[http\].* new connection from 127\.0\.0\.1:(\d+)")
    }
    # (One that was killed while it accepted has said nothing of that yet.)
    assert {worker_of[port] for port in load.failed if port in worker_of} <= killed
    assert len(load.failed) == len(set(load.failed)) <= 3 * 8
    # ... it was replaced soon ...
    assert max(seconds) < 5, seconds  # 0.1 s when the machine is idle
    print(f"replaced after {', '.join(f'{one:.3f}' for one in seconds)} s, {len(load.failed)} failed")
    # ... and everything that was acknowledged is there.
    answered, most = len(load.statuses), len(load.statuses) + len(load.failed)
    assert answered <= number(store, b"n") <= most
    assert answered <= left(store) <= most


@pytest.mark.slow
async def test_no_item_is_taken_twice_and_none_waits_for_the_dead(
    start: Start, store: Store, address: str
) -> None:
    """Whoever is killed may have an item in hand; all others are counted once."""
    serving = start(bootstrap(listener(DIRECT, filters=counting(TAKING))), "--store", address)
    load, kills = Load(serving.port), ((1, 1), (0, 1), (1, 2))
    async with load.of(4):
        for index, life in kills:
            await load.more(40)
            await asyncio.to_thread(serving.kill, index, life)
        await load.more(40)
        # Told of what waits when the last listener came, and of each item since: nothing is left in the end.
    put, before = number(store, b"n"), -1
    while (taken := number(store, b"t")) != before and taken < put:  # until nothing more happens
        before = taken
        await asyncio.sleep(1)
    least = put - len(kills) - len(load.failed)
    assert serving.end() == 0
    assert least <= taken <= put
    assert left(store) == 0


# --- the life of workers ------------------------------------------------------------------------------------


async def test_both_serve_and_share_by_themselves(start: Start, tmp_path: Path) -> None:
    """Without a store that was named, shared data is that of all workers, and goes with them."""
    serving = start(bootstrap(listener(DIRECT, filters=counting(SAYING))), ready=False)
    serving.wait_for("all 2 workers serve")
    [path] = tmp_path.glob("pywasmvm-*/shared")
    store = open_store(f"sqlite:{path}")
    store.set(b"V", b"n", bytes(4), 0)
    clients = await clients_of_both(serving)
    for client in clients * 5:
        assert (await client.get()).status == 200
    assert number(store, b"n") == 5 * len(clients)
    # One of them listens; it is told of what the other one put in, too.
    serving.wait_for("wasm log V: a line", 5 * len(clients))
    told = {found[1] for found in serving.find(r"\[(\d+)\]\[info\]\[wasm\].* a line")}
    assert len(told) == 1
    for client in clients:
        client.close()
    assert serving.end() == 0
    assert not list(tmp_path.glob("pywasmvm-*"))


async def until_refused(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            (await Client.open(port)).close()
            await asyncio.sleep(0.01)


async def test_sigterm_drains_all(start: Start) -> None:
    arrived = asyncio.Event()
    release = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await visit.request()
        arrived.set()
        await release.wait()
        visit.send(answer())

    async with upstream(slow) as up:
        serving = start(bootstrap(listener(), clusters=cluster(up.port)))
        client = await Client.open(serving.port)
        asking = asyncio.create_task(client.get())
        await asyncio.wait_for(arrived.wait(), 20)
        os.kill(serving.process.pid, signal.SIGTERM)
        await asyncio.to_thread(serving.wait_for, r"\[\d+\]\[warning\].*caught SIGTERM", 3)
        with pytest.raises(ConnectionError):  # nobody takes what comes now
            await until_refused(serving.port)
        release.set()
        assert (await asking).status == 200
        client.close()
    serving.process.wait(20)
    serving.reader.join(5)
    assert serving.process.returncode == 0
    assert serving.lines[-1][1].endswith("exiting\n")
    assert gone(serving.worker(0), serving.worker(1))


async def test_a_worker_is_told_twice(start: Start) -> None:
    """As systemd does, and a terminal: the whole group, and the parent tells its workers again."""
    serving = start(bootstrap(listener(DIRECT)))
    for pid in (serving.worker(0), serving.worker(1)):
        os.kill(pid, signal.SIGINT)
    for pid in (serving.process.pid, serving.worker(0), serving.worker(1)):
        os.kill(pid, signal.SIGTERM)
    serving.process.wait(20)
    serving.reader.join(5)
    assert serving.process.returncode == 0, serving.lines
    assert not serving.find("Traceback|SIGKILL"), serving.lines


def test_no_orphans(start: Start, tmp_path: Path) -> None:
    serving = start(bootstrap(listener(DIRECT)))
    pids = serving.worker(0), serving.worker(1)
    serving.process.kill()
    serving.process.wait(10)
    assert gone(*pids)
    assert not list(tmp_path.glob("pywasmvm-*"))


def test_a_worker_that_is_told_to_end_is_replaced(start: Start) -> None:
    serving = start(bootstrap(listener(DIRECT)))
    os.kill(serving.worker(1), signal.SIGTERM)
    serving.worker(1, 2)
    serving.wait_for(r"worker \d+ ended with status 0")
    assert serving.end() == 0


def test_one_death_after_another(start: Start) -> None:
    serving = start(bootstrap(listener(DIRECT)))
    for life in range(1, workers.AT_ONCE + 2):
        serving.kill(1, life)
    serving.wait_for(r"6 workers in a row had a short life: the next in 0\.5 s")
    assert len(serving.find("worker 0: process")) == 1
    assert serving.end() == 0


def test_signals_are_passed_on(start: Start, tmp_path: Path) -> None:
    serving = start(bootstrap(listener(DIRECT)), "--no-watch")
    pids = sorted((serving.worker(0), serving.worker(1)))
    os.kill(serving.process.pid, signal.SIGUSR1)
    serving.wait_for("status: rss", 2)
    listed = serving.wait_for(r"workers: (\d+), (\d+)$")
    assert sorted(map(int, listed.groups())) == pids
    (tmp_path / "envoy.yaml").write_text(bootstrap(listener(DIRECT.replace("hello", "bye"))))
    os.kill(serving.process.pid, signal.SIGHUP)
    serving.wait_for("loaded anew", 2)
    assert {int(one[1]) for one in serving.find(r"\[(\d+)\].*loaded anew")} == set(pids)
    assert serving.end(signal.SIGINT) == 0


@pytest.mark.parametrize("now", ["good", "bad", "refused"])
async def test_who_replaces_another_begins_with_the_configuration_of_now(
    start: Start, tmp_path: Path, now: str
) -> None:
    serving = start(bootstrap(listener(DIRECT)), "--no-watch")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        changed = listener(DIRECT.replace("hello", "bye"), port=serving.port)  # the port it has got
        other = listener(DIRECT, name="other", port=taken.getsockname()[1])
        text = {"good": bootstrap(changed), "bad": "nonsense: [", "refused": bootstrap(changed, other)}[now]
        (tmp_path / "envoy.yaml").write_text(text)
        for index in (0, 1):
            await asyncio.to_thread(serving.kill, index)
    client = await Client.open(serving.port)
    assert (await client.get()).body == (b"bye" if now == "good" else b"hello")
    client.close()
    assert bool(serving.find("has changed and is refused")) == (now != "good")
    assert serving.end() == 0


def put_filter(folder: Path, says: bytes) -> str:
    """A filter in a file that says something in a header."""
    (folder / "filter.wasm").write_bytes(guest("mark").replace(b"x-guestyes", b"x-guest" + says))
    return re.sub('inline_bytes: "[^"]*"', f'filename: "{folder}/filter.wasm"', wasm_filter("mark"))


def break_yaml(folder: Path) -> None:
    (folder / "envoy.yaml").write_text("nonsense: [")


def break_filter(folder: Path) -> None:
    (folder / "filter.wasm").write_bytes(b"\0asm\1\0\0\0half")


def lose_filter(folder: Path) -> None:
    (folder / "filter.wasm").unlink()


@pytest.mark.parametrize("harm", [break_yaml, break_filter, lose_filter])
async def test_who_replaces_another_serves_what_the_others_do(
    start: Start, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """The last configuration that was accepted, neither the first one nor the broken newest one."""
    filters = put_filter(tmp_path, b"old")
    serving = start(bootstrap(listener(DIRECT, filters=filters)), "--no-watch")
    changed = bootstrap(listener(DIRECT.replace("hello", "bye"), filters=filters))
    (tmp_path / "envoy.yaml").write_text(changed)
    put_filter(tmp_path, b"new")
    os.kill(serving.process.pid, signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew", 2)
    harm(tmp_path)
    for life in (1, 2):
        for index in (0, 1):
            await asyncio.to_thread(serving.kill, index, life)
    assert len(serving.find("has changed and is refused")) == 4
    assert not serving.find("what the other workers serve is refused")
    clients = await clients_of_both(serving, life=3)
    for client in clients:
        answered = await client.get()
        assert (answered.body, answered.one("x-guest")) == (b"bye", "new")
        client.close()
    # Once it is in order again, all go over to it.
    put_filter(tmp_path, b"now")
    (tmp_path / "envoy.yaml").write_text(changed.replace("bye", "again"))
    os.kill(serving.process.pid, signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew", 4)
    client = await Client.open(serving.port)
    answered = await client.get()
    assert (answered.body, answered.one("x-guest")) == (b"again", "now")
    client.close()
    assert serving.end() == 0


async def test_a_port_that_nobody_wants_any_more_refuses(start: Start, tmp_path: Path) -> None:
    both = bootstrap(listener(DIRECT), listener(DIRECT.replace("hello", "other"), name="other"))
    serving = start(both, "--no-watch")
    other = int(serving.wait_for(r"listener other: listening on 127\.0\.0\.1:(\d+)$")[1])
    client = await Client.open(other)
    assert (await client.get()).body == b"other"
    (tmp_path / "envoy.yaml").write_text(bootstrap(listener(DIRECT)))
    os.kill(serving.process.pid, signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew", 2)
    with pytest.raises(ConnectionError):
        await until_refused(other)
    client.close()
    # And the other way round: each worker binds the port again.
    (tmp_path / "envoy.yaml").write_text(
        both.replace("port_value: 0", f"port_value: {other}", 2).replace(
            f"port_value: {other}", "port_value: 0", 1
        )
    )
    os.kill(serving.process.pid, signal.SIGHUP)
    await asyncio.to_thread(serving.wait_for, "loaded anew", 4)
    for _ in range(4):
        client = await Client.open(other)
        assert (await client.get()).body == b"other"
        client.close()
    client = await Client.open(serving.port)
    assert (await client.get()).body == b"hello"
    client.close()
    assert serving.end() == 0


async def test_deadlines_hold_in_workers(start: Start) -> None:
    """The thread that watches them was the parent's, too, and did not come along."""
    text = bootstrap(listener(DIRECT, filters=wasm_filter("loop")))
    serving = start(text, "--callback-timeout", "100ms")
    for _ in range(4):
        client = await Client.open(serving.port)
        assert (await client.get()).status == 503
        client.close()
    assert {int(one[1]) for one in serving.find(r"\[(\d+)\]\[debug\]\[http\].* new connection")} <= {
        serving.worker(0),
        serving.worker(1),
    }
    assert serving.end() == 0


@pytest.mark.openssl
async def test_tls_in_workers(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "DNS:a.test", subject="/CN=server")
    tls = f"""
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - certificate_chain: {{filename: {pair.certificate}}}
              private_key: {{filename: {pair.key}}}
      filters:"""
    serving = start(bootstrap(listener(DIRECT).replace("\n    - filters:", tls, 1)))
    for number in range(6):
        if number % 2:  # no handshake: it does not count as a connection for long
            (await Client.open(serving.port)).close()
            continue
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            serving.port,
            ssl=ssl.create_default_context(cafile=str(authority.certificate)),
            server_hostname="a.test",
        )
        client = Client(reader, writer)
        assert (await client.get()).body == b"hello"
        client.close()
    assert serving.end() == 0
    assert not serving.find("Traceback|\\]\\[error\\]")


async def test_the_admin_server_speaks_for_all_workers(start: Start, tmp_path: Path) -> None:
    serving = start(ADMIN + bootstrap(listener(DIRECT, filters=wasm_filter("mark"))))
    admin = AdminClient(serving)
    assert admin.pid == serving.worker(0)
    clients = await clients_of_both(serving)
    for client in clients * 3:
        assert (await client.get()).status == 200
    asked = 3 * len(clients)
    stats = await admin.stats()
    assert stats["http.test.downstream_rq_2xx"] == f"{asked}"
    assert stats["http.test.downstream_cx_active"] == f"{len(clients)}"
    assert stats["listener_manager.total_listeners_active"] == "1"
    assert stats["listener_manager.workers_started"] == "2"
    assert stats["wasm.wasm_vm_count"] == "2"
    prometheus = await admin.ask("/stats/prometheus")
    assert re.search(r'envoy_http_downstream_rq_time_count\{.*"test"\} ' + f"{asked}\n", prometheus)
    # One that has gone is left out, its successor is asked.
    await asyncio.to_thread(serving.kill, 1)
    left = int((await admin.stats())["http.test.downstream_rq_2xx"])
    assert 0 < left < asked
    # What changes something is for all.
    await admin.ask("/logging?admin=trace", "POST")
    await admin.ask("/reset_counters", "POST")
    assert (await admin.stats())["http.test.downstream_rq_2xx"] == "0"
    await admin.ask("/drain_listeners", "POST")
    with pytest.raises(ConnectionError):
        await until_refused(serving.port)
    for client in clients:
        client.close()
    assert serving.end() == 0
    assert not list(tmp_path.glob("pywasmvm-*"))


async def test_the_admin_server_ends_all_workers(start: Start) -> None:
    serving = start(ADMIN + bootstrap(listener(DIRECT)))
    await AdminClient(serving).ask("/quitquitquit", "POST")
    assert serving.process.wait(20) == 0


# --- starts -------------------------------------------------------------------------------------------------


def test_a_refused_plugin_ends_the_start(start: Start) -> None:
    serving = start(bootstrap(listener(DIRECT, filters=wasm_filter("refuse"))), ready=False)
    assert serving.process.wait(20) == 1
    serving.reader.join(5)
    assert serving.lines[-1][1] == "Unable to create Wasm plugin refuse\n"
    assert not serving.find("worker 0")


def test_an_address_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = start(bootstrap(listener(DIRECT, port=port)), ready=False)
        assert serving.process.wait(20) == 1
    serving.wait_for(rf"listener main: cannot listen on 127\.0\.0\.1:{port}: Address already in use")


@pytest.mark.parametrize("concurrency", ["1", "2"])
def test_a_store_that_is_not_there(start: Start, tmp_path: Path, concurrency: str) -> None:
    options = "--store", f"sqlite:{tmp_path}/none/x", "--concurrency", concurrency
    serving = start(bootstrap(listener(DIRECT)), *options, ready=False)
    assert serving.process.wait(20) == 1
    serving.wait_for(r"^store sqlite:.*/none/x: unable to open database file$")


def test_workers_that_share_nothing(start: Start) -> None:
    serving = start(bootstrap(listener(DIRECT)), "--store", "memory")
    serving.wait_for("store memory: each of 2 workers has its own shared data")
    assert serving.end() == 0


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    """What is in order for the parent may not be for its workers."""
    (tmp_path / "envoy.yaml").write_text(bootstrap(listener(DIRECT)))
    code = f"""
        import argparse, sys
        from pywasmproxy import run
        from pywasmproxy.server.proxy import Proxy, StartError
        async def fails(self, server=None):
            raise StartError("no")
        Proxy.serve = fails
        parser = argparse.ArgumentParser()
        run.configure(parser)
        sys.exit(run.run(parser.parse_args(["-c", {str(tmp_path / "envoy.yaml")!r}, "--concurrency", "2"])))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "] no\n" in done.stderr
    assert "ended with status 1" in done.stderr


def test_a_system_that_cannot_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    from pywasmproxy.server.proxy import Proxy

    served: list[Proxy] = []
    monkeypatch.setattr(Proxy, "run", lambda self: served.append(self))
    monkeypatch.delattr(os, "fork")
    parser = argparse.ArgumentParser()
    run.configure(parser)
    assert run.run(parser.parse_args(["--config-yaml", "{}", "--concurrency", "2"])) == 0
    assert len(served) == 1
    assert "--concurrency 2: this system cannot fork, one worker serves" in capsys.readouterr().err
