"""Shared data: scopes, compare-and-swap, empty values."""

from __future__ import annotations

from abi.proxy_wasm.services import Services
from abi.proxy_wasm.types import Status
from tests.abi.rig import BYTES, WORD, Rig

OK, MISSING, MISMATCH = Status.OK, Status.NOT_FOUND, Status.CAS_MISMATCH
GET, SET = "proxy_get_shared_data", "proxy_set_shared_data"


def test_compare_and_swap_as_recorded() -> None:
    rig = Rig(vm_id="V")
    assert rig.ask(GET, b"k", BYTES, WORD) == (MISSING, None, None)
    assert rig.ask(SET, b"k", b"v1", 0) == OK
    assert rig.ask(GET, b"k", BYTES, WORD) == (OK, b"v1", 1)
    assert rig.ask(SET, b"k", b"v2", 1) == OK
    assert rig.ask(SET, b"k", b"v3", 1) == MISMATCH
    assert rig.ask(SET, b"k", b"v4", 99) == MISMATCH
    assert rig.ask(SET, b"k", b"v5", 0) == OK
    assert rig.ask(SET, b"new", b"x", 7) == OK  # a new key takes any number
    assert rig.ask(GET, b"new", BYTES, WORD) == (OK, b"x", 4)
    assert rig.ask(SET, b"emp", b"", 0) == OK
    assert rig.ask(GET, b"emp", BYTES, WORD) == (OK, b"", 5)
    assert rig.ask(GET, b"k", BYTES, WORD) == (OK, b"v5", 3)


def test_the_scope_is_the_vm_id() -> None:
    services = Services()
    one, two, other = (Rig(vm_id=vm_id, services=services) for vm_id in ("V", "V", "W"))
    one.ask(SET, b"k", b"v", 0)
    assert two.ask(GET, b"k", BYTES, WORD) == (OK, b"v", 1)
    assert other.ask(GET, b"k", BYTES, WORD) == (MISSING, None, None)
    assert Rig(vm_id="V").ask(GET, b"k", BYTES, WORD) == (MISSING, None, None)


def test_vms_of_other_configurations_share_and_so_do_those_without_an_id() -> None:
    services = Services()
    for vm_id in ("V", ""):
        one = Rig(vm_id=vm_id, services=services, configuration=b"1")
        two = Rig(vm_id=vm_id, services=services, configuration=b"2")
        assert two.ask(GET, b"k", BYTES, WORD)[0] == MISSING
        one.ask(SET, b"k", b"v", 0)
        assert two.ask(GET, b"k", BYTES, WORD)[:2] == (OK, b"v")


def test_addresses_outside_memory() -> None:
    rig, bad = Rig(), Status.INVALID_MEMORY_ACCESS
    rig.ask(SET, b"k", b"v", 0)
    assert rig.ask(GET, 0xFFFFFFF0, 64, BYTES, WORD)[0] == bad
    assert rig.ask(GET, b"k", BYTES, 0xFFFFFFF0)[0] == bad
    assert rig.ask(SET, b"k", 0xFFFFFFF0, 64, 0) == bad
