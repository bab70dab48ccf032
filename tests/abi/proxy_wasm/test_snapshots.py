"""Snapshots of filters: when they are taken, for whom they are used, and what is said when they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.snapshots import SUFFIX, Snapshots, key_of, of_filter
from abi.proxy_wasm.types import Action
from abi.proxy_wasm.vm import Vm
from pywasmvm import Module, Snapshot, SnapshotError, StoreLimits
from tests.abi.proxy_wasm.test_higress import FILTERS, code
from tests.support.wat import wat

#: `_initialize` logs, counts, and asks for randomness and the environment; `proxy_on_configure` logs what it
#: finds in its memory.
FILTER = wat("""(module
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 2) (data (i32.const 16) "init") (global $count (mut i32) (i32.const 48))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func (export "_initialize")
    (drop (call $log (i32.const 2) (i32.const 16) (i32.const 4)))
    (drop (call $random (i32.const 32) (i32.const 8)))
    (drop (call $environ (i32.const 256) (i32.const 512)))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (i32.store8 (i32.const 40) (global.get $count)))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (drop (call $log (i32.const 2) (i32.const 32) (i32.const 9))) (i32.const 1)))""")


class Dice(MemoryHost):
    """A host whose randomness is never the same."""

    thrown = 0

    def random_bytes(self, count: int) -> bytes:
        Dice.thrown += 1
        return b"%0*d" % (count, Dice.thrown)


def lines(host: MemoryHost) -> list[str]:
    return [record.message for record in host.records]


def test_a_vm_goes_on_from_where_the_other_was() -> None:
    first, second = Dice(), Dice()
    vm = Vm(FILTER, host=first)
    snapshot = vm.snapshot()
    Plugin(vm)
    assert lines(first)[0] == "init"
    # It does not initialise, and so says nothing, and has the other's randomness.
    Plugin(FILTER, host=second, snapshot=snapshot)
    assert lines(second) == lines(first)[1:]
    assert lines(second)[0].endswith("1")
    Plugin(FILTER, host=second, snapshot=Snapshot.from_bytes(snapshot.to_bytes()))
    assert lines(second)[1] == lines(second)[0]


def test_host_functions_work_as_after_the_initialisation() -> None:
    """What may not be called in `_initialize` may be called by a VM that never ran it."""
    module = wat("""(module
      (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
      (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024)) (func (export "_initialize"))
      (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
        (i32.eqz (call $tick (i32.const 250)))))""")
    plugin = Plugin(module, snapshot=Vm(module).snapshot())
    assert plugin.tick_period_ms == 250


def test_only_before_the_first_context() -> None:
    plugin = Plugin(FILTER)
    with pytest.raises(SnapshotError, match="a context has been made in the VM"):
        plugin.vm.snapshot()
    plugin.close()
    with pytest.raises(SnapshotError, match="a context has been made in the VM"):
        plugin.vm.snapshot()


def test_not_of_what_waits_or_counts_or_is_dead() -> None:
    vm = Vm(FILTER)
    vm.after_callback(lambda: None)
    with pytest.raises(SnapshotError, match="has asked the host for something"):
        vm.snapshot()
    vm = Vm(FILTER)
    metric = vm.services.metrics.define(next(iter(vm.metric_ids._last)), b"m")
    assert metric is not None
    vm.metric_ids.add(metric)
    with pytest.raises(SnapshotError, match="has defined metrics"):
        vm.snapshot()
    vm = Vm(FILTER)
    vm.fail("proxy_on_tick", RuntimeError("x"))
    with pytest.raises(SnapshotError, match="the VM is dead"):
        vm.snapshot()


@pytest.mark.parametrize(
    "other", [{"environment": {"A": "1"}}, {"capabilities": frozenset({"proxy_log", "proxy_on_configure"})}]
)
def test_what_the_initialisation_could_see_must_agree(other: dict[str, object]) -> None:
    snapshot = Vm(FILTER).snapshot()
    with pytest.raises(SnapshotError, match="another environment, or with other capabilities"):
        Vm(FILTER, snapshot=snapshot, **other)  # type: ignore[arg-type]
    again = Vm(FILTER, **other).snapshot()  # type: ignore[arg-type]
    Vm(FILTER, snapshot=again, **other)  # type: ignore[arg-type]
    with pytest.raises(SnapshotError):
        Vm(FILTER, snapshot=again)


def test_the_key() -> None:
    keys = {
        key_of(environment, allowed)
        for environment in ({}, {"A": "1"}, {"A": "1", "B": "2"}, {"B": "2", "A": "1"}, {"A": "\udcff"})
        for allowed in (None, frozenset[str](), frozenset({"x"}))
    }
    assert len(keys) == 15  # the guest sees the order of variables, so it counts
    assert {len(key) for key in keys} == {32}


def test_a_shared_vm_has_been_started_already() -> None:
    vm = Vm(FILTER)
    with pytest.raises(TypeError, match="a shared Vm was given"):
        Plugin(vm, snapshot=vm.snapshot())


class TestSnapshots:
    def test_the_second_vm_starts_from_the_first_ones(self) -> None:
        notes: list[str] = []
        registry = VmRegistry(snapshots=Snapshots(note=notes.append))
        host = Dice()
        for number in range(3):
            registry.plugin(FILTER, host=host, vm_id=str(number))
        assert lines(host).count("init") == 1
        assert len(set(lines(host))) == 2
        registry.plugin(FILTER, host=host, vm_id="other", environment={"A": "1"})
        assert lines(host).count("init") == 2
        assert notes == []

    def test_a_folder_outlives_the_process(self, tmp_path: Path) -> None:
        host, folder = Dice(), tmp_path / "snapshots"
        Plugin(FILTER, host=host, snapshots=Snapshots(folder))
        [file] = folder.iterdir()
        assert file.suffix == SUFFIX
        assert file.stat().st_mode & 0o077 == 0  # there may be secrets in it
        Plugin(FILTER, host=host, snapshots=Snapshots(folder))
        assert lines(host).count("init") == 1

    @pytest.mark.parametrize("damage", ["cut", "other", "misplaced"])
    def test_a_file_that_is_not_usable_is_made_again(self, tmp_path: Path, damage: str) -> None:
        host = Dice()
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path))
        [file] = tmp_path.iterdir()
        good = file.read_bytes()
        if damage == "cut":
            file.write_bytes(good[:-1])
        else:
            other = Vm(FILTER, environment={"A": "1"})
            (other.snapshot() if damage == "misplaced" else Snapshot.take(other.instance)).save(file)
        notes: list[str] = []
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path, note=notes.append))
        [note] = notes
        assert note.startswith(f"snapshot {file} is not used: ")
        assert lines(host).count("init") == 2
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path, note=notes.append))
        assert (lines(host).count("init"), len(notes)) == (2, 1)

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="no modes on this system")
    def test_a_file_that_others_may_write_to_is_not_used(self, tmp_path: Path) -> None:
        host, notes = Dice(), list[str]()
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path))
        [file] = tmp_path.iterdir()
        file.chmod(0o666)
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path, note=notes.append))
        assert "others may write to" in notes[0]
        assert lines(host).count("init") == 2
        target = tmp_path / "elsewhere"
        file.rename(target)
        file.symlink_to(target)
        Plugin(FILTER, host=host, snapshots=Snapshots(tmp_path, note=notes.append))
        assert lines(host).count("init") == 3

    def test_limits_that_the_snapshot_does_not_fit(self) -> None:
        """The VM starts in the ordinary way, with all of its limits."""
        notes: list[str] = []
        snapshots = Snapshots(note=notes.append)
        growing = wat("""(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
          (func (export "malloc") (param i32) (result i32) (i32.const 1024))
          (func (export "_initialize") (drop (memory.grow (i32.const 4)))))""")
        assert Vm(growing, snapshots=snapshots).instance.memories[0].pages == 5
        vm = Vm(growing, snapshots=snapshots, limits=StoreLimits(memory_pages=4))
        assert (vm.instance.memories[0].pages, vm.store.pages) == (1, 1)
        assert "memory 0 cannot have 5 pages" in notes[0]

    def test_why_none_is_made_is_said_once(self) -> None:
        notes: list[str] = []
        snapshots = Snapshots(note=notes.append)
        odd = wat("""(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
          (type $s (struct)) (global (mut anyref) (struct.new $s))
          (func (export "malloc") (param i32) (result i32) (i32.const 1024)))""")
        for _ in range(2):
            Plugin(odd, snapshots=snapshots, vm_id="v")
        [note] = notes
        assert note.startswith("VM 'v': no snapshot is made: global 0 holds a reference")

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        notes: list[str] = []
        Plugin(FILTER, snapshots=Snapshots(tmp_path / "file" / "x", note=notes.append))
        assert any("cannot be written" in note for note in notes)


def test_what_the_command_line_asks() -> None:
    snapshot = of_filter(Module(FILTER), {"A": "1"}, StoreLimits())
    assert snapshot is not None
    Vm(FILTER, environment={"A": "1"}, snapshot=snapshot)
    assert of_filter(Module("(module)"), {}, StoreLimits()) is None
    with pytest.raises(SnapshotError, match=r"the filter does not start:\nFailed to initialize Wasm code"):
        of_filter(Module('(module (func (export "proxy_abi_version_0_2_1")))'), {}, StoreLimits())


@pytest.mark.higress
@pytest.mark.slow
@pytest.mark.parametrize(("name", "config", "added"), FILTERS[1:], ids=[name for name, *_ in FILTERS[1:]])
def test_a_go_filter_does_the_same_from_a_snapshot(
    name: str, config: bytes, added: list[tuple[bytes, bytes]]
) -> None:
    module = Module(code(name), validate="lazy")
    vm = Vm(module, start_limits=StoreLimits(seconds=300))
    snapshot = Snapshot.from_bytes(vm.snapshot().to_bytes())
    before = [(b":authority", b"a"), (b":path", b"/"), (b":method", b"GET"), (b"x-key", b"1")]
    found = []
    for plugin in (Plugin(vm, config=config), Plugin(module, config=config, snapshot=snapshot)):
        requests = []
        for _ in range(2):
            headers = HeaderMap(before)
            with plugin.http_stream() as stream:
                assert stream.on_request_headers(headers, True) is Action.CONTINUE
            requests.append(sorted(headers.lines))
        found.append((requests, [(r.level, r.message) for r in plugin.logs], plugin.vm.contexts.keys()))
    assert found[0] == found[1]
    assert found[1][0][0] == sorted(before + added)
