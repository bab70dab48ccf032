"""Stores that go away, hang, fill up or are none: an error in bounded time, and no harm afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abi.proxy_wasm import services
from abi.proxy_wasm.services import Services
from abi.proxy_wasm.store import MemoryStore, Store, StoreError
from abi.proxy_wasm.types import Status
from pywasmproxy.stores import open_store, sqlite
from pywasmproxy.stores.sqlite import SqliteStore
from tests.pywasmproxy.stores.conftest import Make, Redis, shared_stores

ROOT = Path(__file__).resolve().parents[3]
OK, FULL = Status.OK, Status.INTERNAL_FAILURE


def refused(operation: Callable[[], object]) -> StoreError:
    """The error, which comes soon. How soon is bounded far above what is waited for: machines are busy."""
    begin = time.monotonic()
    with pytest.raises(StoreError) as caught:
        operation()
    assert time.monotonic() - begin < 5
    return caught.value


# --- names --------------------------------------------------------------------------------------------------


def test_names(tmp_path: Path) -> None:
    assert isinstance(open_store("memory"), MemoryStore)
    assert isinstance(open_store(f"sqlite:{tmp_path}/x"), SqliteStore)
    assert not list(tmp_path.iterdir())
    for none in ("", "sqlite:", "postgres://x", "redis", "MEMORY"):
        with pytest.raises(ValueError, match="a store is memory, sqlite:PATH, or redis://HOST:PORT/DB, not"):
            open_store(none)
    with pytest.raises(ValueError):  # noqa: PT011 - the client's words
        open_store("redis://host:port/0")


def test_passwords_are_not_shown() -> None:
    assert open_store("redis://me:secret@host:1/2?prefix=p").name == "redis://host:1/2?prefix=p"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match=r"pip install 'pywasmvm\[redis\]'"):
        open_store("redis://host")


# --- files --------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, and longer than the head of one" * 20)
    assert "not a database" in str(refused(SqliteStore(tmp_path / "text").check))
    assert "unable to open" in str(refused(SqliteStore(tmp_path / "none" / "x").check))
    assert (tmp_path / "text").read_text().startswith("this is no database")


def test_a_file_that_is_removed(tmp_path: Path) -> None:
    lines: list[str] = []
    shared = Services(SqliteStore(tmp_path / "x"), note=lines.append)
    assert shared.data.set("", b"k", b"v", 0) is OK
    shared.poll()
    for path in tmp_path.iterdir():
        path.unlink()
    shared.poll()
    assert "the file is gone" in lines[0]
    assert shared.data.set("", b"k", b"v", 0) is FULL
    time.sleep(services.AWAY)
    assert shared.data.set("", b"k", b"v", 0) is OK
    assert SqliteStore(tmp_path / "x").get(b"", b"k") == (b"v", 1)


def test_a_file_that_somebody_keeps_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "x")
    store.check()
    with sqlite3.connect(tmp_path / "x", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        error = refused(lambda: store.set(b"", b"k", b"v", 0))
        assert (str(error), error.away) == ("busy for 0.25 s", False)
        assert store.get(b"", b"k") is None  # readers need not wait

        def leave(seconds: float) -> None:
            other.rollback()

        monkeypatch.setattr(sqlite.time, "sleep", leave)
        assert store.set(b"", b"k", b"v", 0) is OK
    other.close()


FULL_DISK = """
import resource, sys
from abi.proxy_wasm.store import StoreError
from pywasmproxy.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
assert store.set(b"", b"kept", b"v", 0) == 0
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
stored = 0
try:
    while stored < 100:
        assert store.set(b"", b"%d" % stored, bytes(50_000), 0) == 0
        stored += 1
except StoreError as error:
    print(error)
assert 0 < stored < 100
for _ in range(2):
    assert store.get(b"", b"kept") == (b"v", 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert all(store.get(b"", b"%d" % n)[0] == bytes(50_000) for n in range(stored))
assert store.set(b"", b"more", bytes(50_000), 0) == 0
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no limits on files")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "x")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "disk" in done.stdout


@shared_stores
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_a_connection_of_its_own(make: Make) -> None:
    store = make()
    store.register(b"", b"q", "x")
    for _ in range(3):
        store.enqueue(1, b"item")
    child = os.fork()
    if child == 0:
        os._exit(0 if store.dequeue(1) == b"item" and store.set(b"", b"k", b"child", 0) is OK else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get(b"", b"k") == (b"child", 1)
    assert [store.dequeue(1) for _ in range(3)] == [b"item", b"item", Status.EMPTY]


# --- servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    one = Redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    yield one
    one.end()


@pytest.fixture
def remote(server: Redis) -> Iterator[Store]:
    store = open_store(server.address())
    yield store
    store.close()


@pytest.mark.redis
def test_a_server_that_dies_and_comes_back(server: Redis, remote: Store) -> None:
    assert remote.set(b"", b"k", b"v", 0) is OK
    remote.register(b"", b"q", "x")
    assert [remote.enqueue(1, b"%d" % n) for n in range(3)] == [OK] * 3
    server.end()
    assert "refused" in str(refused(remote.check))
    assert refused(lambda: remote.set(b"", b"k", b"w", 0)).away
    server.begin()
    assert remote.get(b"", b"k") == (b"v", 1)
    assert [remote.dequeue(1) for _ in range(4)] == [b"0", b"1", b"2", Status.EMPTY]


@pytest.mark.redis
def test_an_item_whose_answer_was_lost_is_not(server: Redis, remote: Store) -> None:
    remote.register(b"", b"q", "x")
    for item in (b"first", b"a", b"b"):
        remote.enqueue(1, item)
    assert remote.dequeue(1) == b"first"  # the server knows the script now
    assert remote.notifications("x") == [1, 1, 1]
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)  # it takes the command, and answers when nobody listens
    try:
        assert refused(lambda: remote.dequeue(1)).away
    finally:
        server.process.send_signal(signal.SIGCONT)
    other = open_store(server.address())
    other.check()
    remote.restore(b"", b"q", "x", 1)
    assert remote.notifications("x") == [1, 1]
    assert [remote.dequeue(1) for _ in range(3)] == [b"a", b"b", Status.EMPTY]
    other.close()


@pytest.mark.redis
def test_a_server_without_memory(server: Redis, remote: Store) -> None:
    assert remote.set(b"", b"k", b"v", 0) is OK
    server.end()
    server.begin("--maxmemory", "1")
    error = refused(lambda: remote.set(b"", b"k", bytes(100), 0))
    assert "maxmemory" in str(error)
    assert not error.away
    assert remote.get(b"", b"k") == (b"v", 1)


@pytest.mark.redis
def test_guests_live_through_it(server: Redis) -> None:
    lines: list[str] = []
    shared = Services(open_store(server.address()), note=lines.append)
    assert shared.data.set("", b"k", b"v", 0) is OK
    server.end()
    assert [shared.data.get("", b"k") for _ in range(100)] == [FULL] * 100
    server.begin()
    time.sleep(services.AWAY)
    assert shared.data.get("", b"k") == (b"v", 1)
    assert len(lines) == 2
    assert lines[0].endswith("shared data, queues and metrics fail until it answers")
    assert lines[1].endswith("answers again")
    shared.close()
