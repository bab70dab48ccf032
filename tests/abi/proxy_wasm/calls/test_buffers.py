"""Buffers: ranges, availability, changes."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.calls.buffers import MAX_BODY
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.versions import AbiVersion
from tests.abi.rig import BYTES, OUTPUT, WORD, Rig

REST = 0xFFFFFFFF
OK, MISSING, BAD = Status.OK, Status.NOT_FOUND, Status.BAD_ARGUMENT


def in_body(body: bytes, *questions: tuple[object, ...]) -> tuple[bytearray, list[object]]:
    """The answers to host calls made in `proxy_on_response_body`, and the body afterwards."""
    rig = Rig()
    rig.during("proxy_on_response_body", lambda: [rig.ask(*q) for q in questions])  # type: ignore[arg-type]
    data = bytearray(body)
    rig.plugin.http_stream().on_response_body(data, True)
    return data, rig.results["proxy_on_response_body"]


@pytest.mark.parametrize(
    ("start", "size", "data"),
    [
        (0, 5, b"Hello"),
        (6, 5, b"World"),
        (6, REST, b"World!"),
        (12, 5, b""),
        (13, 5, b""),
        (0, 0, b""),
        (REST, 1, b""),
    ],
)
def test_ranges_are_clipped(start: int, size: int, data: bytes) -> None:
    question = ("proxy_get_buffer_bytes", 1, start, size, BYTES)
    assert in_body(b"Hello World!", question)[1] == [(OK, data)]


@pytest.mark.parametrize(
    ("start", "size", "status", "after"),
    [
        (0, 0, OK, b"-Hello"),  # prepend
        (0, 3, OK, b"-lo"),  # the specification's partial replacement; Envoy does it at the start only
        (0, 5, OK, b"-"),
        (0, REST, OK, b"-"),
        (5, 0, OK, b"Hello-"),  # append
        (REST, REST, OK, b"Hello-"),
        (1, 0, BAD, b"Hello"),
        (4, 1, BAD, b"Hello"),
    ],
)
def test_what_can_be_set(start: int, size: int, status: Status, after: bytes) -> None:
    body, answers = in_body(b"Hello", ("proxy_set_buffer_bytes", 1, start, size, b"-"))
    assert answers == [status]
    assert body == after


def test_an_empty_body_can_be_filled_at_its_end() -> None:
    body, answers = in_body(b"", ("proxy_set_buffer_bytes", 1, REST, 0, b"tail"))
    assert answers == [OK]
    assert body == b"tail"


def test_changes_are_seen_at_once() -> None:
    answers = in_body(
        b"Hello",
        ("proxy_set_buffer_bytes", 1, 0, REST, b"new"),
        ("proxy_get_buffer_status", 1, WORD, WORD),
        ("proxy_get_buffer_bytes", 1, 0, REST, BYTES),
    )[1]
    assert answers == [OK, (OK, 3, 0), (OK, b"new")]


def everywhere(rig: Rig, buffer: int) -> list[object]:
    return [
        rig.ask("proxy_get_buffer_bytes", buffer, 0, REST, BYTES),
        rig.ask("proxy_get_buffer_status", buffer, WORD, WORD),
        rig.ask("proxy_set_buffer_bytes", buffer, 0, 0, b"x"),
    ]


EMPTY = [(OK, b""), (OK, 0, 0), BAD]
ABSENT = [(MISSING, None), (MISSING, None, None), MISSING]
UNKNOWN = [(BAD, None), (BAD, None, None), BAD]


@pytest.mark.parametrize(
    ("buffer", "expected"),
    [
        *((number, EMPTY) for number in (0, 1, 2, 3, 5, 8)),
        *((number, ABSENT) for number in (4, 7)),
        (6, [(OK, b"vm!"), (OK, 3, 0), BAD]),
        *((number, UNKNOWN) for number in (9, 100, REST)),
    ],
)
@pytest.mark.parametrize("callback", ["headers", "tick", "outside"])
def test_buffers_outside_their_callbacks(callback: str, buffer: int, expected: list[object]) -> None:
    rig = Rig(configuration=b"vm!", config=b"plugin!")
    if callback == "outside":
        assert everywhere(rig, buffer) == expected
        return
    name = {"headers": "proxy_on_request_headers", "tick": "proxy_on_tick"}[callback]
    rig.during(name, lambda: everywhere(rig, buffer))
    if callback == "tick":
        rig.plugin.tick()
    else:
        rig.plugin.http_stream().on_request_headers(HeaderMap(), False)
    assert rig.results[name] == expected


def test_plugin_configuration_exists_as_the_plugin_is_created_and_configured() -> None:
    names = ("proxy_on_context_create", "proxy_on_vm_start", "proxy_on_configure")
    rig = Rig(hooks=dict.fromkeys(names, lambda rig: everywhere(rig, 7)), config=b"plugin!")
    there = [(OK, b"plugin!"), (OK, 7, 0), BAD]
    assert rig.results["proxy_on_context_create"] == there  # as Envoy has it, measured
    assert rig.results["proxy_on_vm_start"] == ABSENT
    assert rig.results["proxy_on_configure"] == there


def test_request_body_only_in_its_callback() -> None:
    rig = Rig()
    rig.during("proxy_on_request_body", lambda: everywhere(rig, 0)[0])
    rig.during("proxy_on_response_headers", lambda: everywhere(rig, 0)[0])
    stream = rig.plugin.http_stream()
    stream.on_request_body(bytearray(b"abc"), True)
    stream.on_response_headers(HeaderMap(), True)
    assert rig.results == {"proxy_on_request_body": (OK, b"abc"), "proxy_on_response_headers": (OK, b"")}


def test_a_held_body_can_still_be_read() -> None:
    rig = Rig()
    rig.returns("proxy_on_request_body", 1)
    stream = rig.plugin.http_stream()
    body = bytearray(b"abc")
    stream.on_request_body(body, False)

    def action() -> list[object]:
        return [rig.ask("proxy_set_effective_context", stream.id), *everywhere(rig, 0)]

    rig.during("proxy_on_tick", action)
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == [OK, (OK, b"abc"), (OK, 3, 0), OK]
    assert body == b"xabc"


def test_outputs_outside_memory_are_refused() -> None:
    rig = Rig(configuration=b"vm!")
    for slots in ((0xFFFFFFF0, OUTPUT), (OUTPUT, 0xFFFFFFF0), (0xFFFFFFFF, 0xFFFFFFFF)):
        assert rig.ask("proxy_get_buffer_bytes", 6, 0, REST, *slots) == Status.INVALID_MEMORY_ACCESS


def test_an_empty_result_with_a_null_size_slot_gets_a_real_block() -> None:
    # The AssemblyScript SDK of the story passes a configuration's size (0) as the address of the size slot.
    rig = Rig()
    rig.vm.guest.write(0, b"\x07" * 8)
    assert rig.ask("proxy_get_buffer_bytes", 6, 0, 0, OUTPUT, 0) == OK
    assert rig.vm.guest.read(0, 8) == b"\x07" * 8
    assert rig.vm.guest.read_u32(OUTPUT) != 0


def test_a_size_slot_in_low_memory_is_written() -> None:
    rig = Rig(configuration=b"vm!")
    assert rig.ask("proxy_get_buffer_bytes", 6, 0, 3, OUTPUT, 3) == OK
    assert rig.vm.guest.read_u32(3) == 3


@pytest.mark.parametrize("config", [b"plugin", b""])
def test_get_configuration_of_0_1_0(config: bytes) -> None:
    def ask(rig: Rig) -> object:
        return rig.ask("proxy_get_configuration", BYTES)

    hooks = dict.fromkeys(("proxy_on_vm_start", "proxy_on_configure"), ask)
    rig = Rig(AbiVersion.V0_1_0, hooks=hooks, configuration=b"vm", config=config)
    assert rig.results == {"proxy_on_vm_start": (OK, b"vm"), "proxy_on_configure": (OK, config)}
    assert ask(rig) == (OK, b"vm")


def test_a_body_cannot_grow_without_end() -> None:
    body = bytearray(MAX_BODY - 1)
    rig = Rig()
    questions = [("proxy_set_buffer_bytes", 1, REST, 0, data) for data in (b"12", b"1", b"1")]
    rig.during("proxy_on_response_body", lambda: [rig.ask(*question) for question in questions])
    rig.plugin.http_stream().on_response_body(body, True)
    assert rig.results["proxy_on_response_body"] == [Status.INTERNAL_FAILURE, OK, Status.INTERNAL_FAILURE]
    assert len(body) == MAX_BODY
