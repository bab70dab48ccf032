"""The ABI's availability table beside the real Envoy: a guest that makes its calls in every callback.

`tests/abi/availability.py` says what every host function answers in every phase, and our host is asked for
all of it; here Envoy is asked, too, wherever an exchange over HTTP/1 or a TCP connection comes and the call
leaves it as it is. The guest is written from the table: it makes the calls of all rows in each callback and
logs a letter or two for each.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from abi.proxy_wasm.types import MapType
from abi.proxy_wasm.versions import VERSIONS, AbiVersion, callbacks, host_function
from tests.abi.availability import ROWS, Row
from tests.abi.rig import BYTES, Out
from tests.differential import observe
from tests.differential.scenes import STRING, Exchange, Scene
from tests.replay import modules, proxy, render, tcp
from tests.replay.cases import Case
from tests.support.wat import wat

Noted = list[tuple[str, str]]
How = Callable[..., Coroutine[Any, Any, dict[str, Noted]]]

STEPS = ["client send body", "upstream send body", "upstream eof", "client eof"]

POISON = 0xDEADBEEF
HEX, SLOTS, DATA, AREAS, AREA, HEAP = 64, 128, 0x1000, 0x10000, 0x800, 0x40000

OF_HTTP = (
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_request_headers",
    "proxy_on_request_body",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_response_body",
    "proxy_on_response_trailers",
    "proxy_on_log",
    "proxy_on_done",
    "proxy_on_delete",
)
OF_TCP = (
    "proxy_on_new_connection",
    "proxy_on_downstream_data",
    "proxy_on_upstream_data",
    "proxy_on_upstream_connection_close",
    "proxy_on_downstream_connection_close",
)
CALLBACKS = (*OF_HTTP, *OF_TCP)
ONES = {"proxy_on_vm_start", "proxy_on_configure", "proxy_on_done"}

NOT_ASKED = {
    "proxy_http_call",  # their answers would come whenever they come
    "proxy_grpc_call",
    "proxy_grpc_stream",
    "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue",
}
"""Functions with effects of their own; recorded cases and other scenes have them."""


def is_asked(row: Row, version: AbiVersion) -> bool:
    """Whether Envoy can be asked a row in every callback without changing what comes next."""
    if version not in row.versions or row.module != "env" or row.alone or row.function in NOT_ASKED:
        return False
    if any(callable(argument) for argument in row.arguments):
        return False
    heads = (MapType.HTTP_REQUEST_HEADERS, MapType.HTTP_RESPONSE_HEADERS)
    return not (row.function == "proxy_set_header_map_pairs" and row.arguments[0] in heads)


def types(signature: str) -> str:
    parameters, _, results = signature.partition("->")
    return " ".join(
        [*(f"(param {p})" for p in parameters.split()), *(f"(result {r})" for r in results.split())]
    )


def escaped(data: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in data)


class Guest:
    """The module's text, as it grows."""

    def __init__(self, version: AbiVersion) -> None:
        self.version = version
        self.rows = [row for row in ROWS if is_asked(row, version)]
        self.data: list[str] = []
        self._end = DATA

    def put(self, data: bytes) -> int:
        """The address of bytes in the guest's memory."""
        at = self._end
        if data:
            self.data.append(f'(data (i32.const {at}) "{escaped(data)}")')
        self._end += len(data) + 1
        return at

    def call(self, row: Row) -> str:
        """Make a row's call and note its status, then each output: a size up to 12 as a digit, of other
        numbers whether they are 0, and what was not written."""
        found = host_function(self.version, row.module, row.function)
        assert found is not None
        kinds = iter(found.signature.partition("->")[0].split())
        values, slot, notes = [], SLOTS, []
        for argument in row.arguments:
            words: list[int]
            if isinstance(argument, bytes):
                words = [self.put(argument), len(argument)]
            elif isinstance(argument, Out):
                words = [slot + 8 * number for number in range(len(argument.sizes))]
                slot += 8 * len(argument.sizes)
                notes.append(f"(call ${'size' if argument is BYTES else 'number'} (i32.const {words[-1]}))")
            else:
                words = [int(argument)]
            values += [f"({next(kinds)}.const {word})" for word in words]
        made = f"(call $f_{row.function} {' '.join(values)})"
        told = f"(call $status {made})" if "i32" in found.signature.partition("->")[2] else made
        return "\n".join(["(call $poison)", told, *notes])

    def text(self) -> str:
        names = {row.function: row for row in self.rows} | {"proxy_log": None}
        imports = []
        for name in names:
            found = host_function(self.version, "env", name)
            assert found is not None
            imports.append(f'(import "env" "{name}" (func $f_{name} {types(found.signature)}))')
        calls = "\n".join(self.call(row) for row in self.rows)
        known, functions = callbacks(self.version), []
        for number, name in enumerate(CALLBACKS):
            area, label = AREAS + AREA * number, f"{name} ".encode()
            self.data.append(f'(data (i32.const {area}) "{escaped(label)}")')
            signature = known[name].signature
            result = f"(i32.const {int(name in ONES)})" if "-> i32" in signature else ""
            functions.append(
                f'(func (export "{name}") {types(signature)}'
                f" (call $all (i32.const {area}) (i32.const {len(label)})) {result})"
            )
        return f"""(module
          {" ".join(imports)}
          (memory (export "memory") 16)
          (global $heap (mut i32) (i32.const {HEAP}))
          (global $at (mut i32) (i32.const 0))
          (data (i32.const {HEX}) "0123456789abc")
          (func (export "{self.version.marker}"))
          (func (export "malloc") (param i32) (result i32) (global.get $heap)
            (global.set $heap (i32.add (global.get $heap) (i32.add (local.get 0) (i32.const 1)))))
          (func $put (param i32)
            (i32.store8 (global.get $at) (local.get 0))
            (global.set $at (i32.add (global.get $at) (i32.const 1))))
          (func $status (param i32) (call $put (i32.load8_u (i32.add (i32.const {HEX}) (local.get 0)))))
          (func $number (param i32)
            (call $put (select (i32.const 117)
              (select (i32.const 122) (i32.const 119) (i32.eqz (i32.load (local.get 0))))
              (i32.eq (i32.load (local.get 0)) (i32.const {POISON})))))
          (func $size (param i32) (local $n i32)
            (local.set $n (i32.load (local.get 0)))
            (if (i32.eq (local.get $n) (i32.const {POISON}))
              (then (call $put (i32.const 117)))
              (else (call $status
                (select (local.get $n) (i32.const 12) (i32.lt_u (local.get $n) (i32.const 12)))))))
          (func $poison (local $n i32)
            (loop $next
              (i32.store (i32.add (i32.const {SLOTS}) (local.get $n)) (i32.const {POISON}))
              (br_if $next (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 4))) (i32.const 64)))))
          (func $all (param $area i32) (param $size i32)
            (global.set $heap (i32.const {HEAP}))
            (global.set $at (i32.add (local.get $area) (local.get $size)))
            {calls}
            (drop (call $f_proxy_log (i32.const 2) (local.get $area)
              (i32.sub (global.get $at) (local.get $area)))))
          {" ".join(functions)}
          {" ".join(self.data)})"""

    def read(self, letters: str) -> list[str]:
        """What a callback noted, cut into rows."""
        found, at = [], 0
        for row in self.rows:
            signature = getattr(host_function(self.version, row.module, row.function), "signature", "")
            count = int("i32" in signature.partition("->")[2])
            count += sum(isinstance(argument, Out) for argument in row.arguments)
            found.append(letters[at : at + count])
            at += count
        assert at == len(letters)
        return found


def data(guest: Guest, folder: Path) -> dict[str, Any]:
    """What is configured in either case."""
    (folder / "guest.wasm").write_bytes(wat(guest.text()))
    plugin: dict[str, Any] = {"wasm": str(folder / "guest"), "name": "plugin", "root_id": "r", "vm_id": "v"}
    plugin["configuration"] = {"@type": STRING, "value": "plugin config"}
    plugin["vm_configuration"] = {"@type": STRING, "value": "vm config"}
    node = {"id": "node-1", "cluster": "c"}
    return {"name": "availability", "filters": [plugin], "node": node, "requests": []}


async def exchange(guest: Guest, folder: Path, filters: Path, command: proxy.Command) -> dict[str, Noted]:
    """A request and a response with bodies and trailers, and a field `x` in every map."""
    trailers = {"downstream_http1_trailers": True, "upstream_http1_trailers": True}
    answer = {"headers": [["x", "v"]], "chunks": ["body"], "trailers": [["x", "v"]]}
    request = {"method": "POST", "headers": [["x", "v"]], "chunks": ["body"], "trailers": [["x", "v"]]}
    case = Case("availability", {**data(guest, folder), **trailers})
    one = Scene("availability", case, [Exchange("all", request, answer, "on_delete ")])
    seen = await observe.observe(one, filters, command)
    return {where: noted(seen[where].guest) for where in ("start", "all")}


async def connection(guest: Guest, folder: Path, filters: Path, command: proxy.Command) -> dict[str, Noted]:
    """Bytes there and back, and both ends' ends."""
    case = Case("availability", {**data(guest, folder), "listener": "tcp"})
    with tempfile.TemporaryDirectory() as own:
        async with tcp.Upstream() as upstream:
            ports = {"listener": proxy.free_port(), "upstream": upstream.port, "dead": proxy.free_port()}
            config = Path(own) / "envoy.yaml"
            config.write_text(render.render(case, filters, ports), encoding="utf-8")
            running = await proxy.RunningProxy.start(command, config, "trace", Path(own))
            upstream.pause = running.pause
            try:
                assert await running.wait_until_listening(ports["listener"], probe=False)
                start = await running.guest_lines(0, None)
                await tcp.connection(STEPS, {}, ports["listener"], upstream, running)
                rest = await running.guest_lines(len(start), None)
            finally:
                await running.stop()
    both = {"start": start, "all": rest}
    return {where: noted([record.message for record in records]) for where, records in both.items()}


def noted(lines: list[str]) -> Noted:
    """Callbacks and their letters."""
    found = []
    for line in lines:
        name, _, letters = line[line.find("proxy_on_") :].partition(" ")
        if name in CALLBACKS:
            found.append((name, letters))
    return found


MEANT = ("proxy_get_buffer_bytes", "proxy_get_buffer_status"), "FOREIGN_FUNCTION_ARGUMENTS"
"""Outside of its callback this buffer shows in Envoy what was read of another one before, here nothing."""


def difference(guest: Guest, envoy: Noted, ours: Noted) -> list[tuple[str, ...]]:
    """Rows that were answered in another way."""
    assert [name for name, _ in envoy] == [name for name, _ in ours]
    found: list[tuple[str, ...]] = []
    for (name, theirs), (_, mine) in zip(envoy, ours, strict=True):
        for row, left, right in zip(guest.rows, guest.read(theirs), guest.read(mine), strict=True):
            if left != right and not (row.function in MEANT[0] and row.case == MEANT[1]):
                found.append((name, row.function, row.case, left, right))
    return found


async def both(how: How, *given: Any) -> list[dict[str, Noted]]:
    commands = (proxy.Command.parse("envoy"), proxy.Command.parse(None))
    return await asyncio.gather(*(how(*given, command) for command in commands))


@pytest.mark.npm
@pytest.mark.envoy
@pytest.mark.parametrize(
    ("how", "reached"),
    [
        pytest.param(exchange, set(OF_HTTP), id="http"),
        pytest.param(connection, {*OF_TCP, *OF_HTTP[:3], *OF_HTTP[-3:]}, id="tcp"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_envoy_answers_the_same(version: AbiVersion, how: How, reached: set[str], tmp_path: Path) -> None:
    guest = Guest(version)
    envoy, ours = asyncio.run(both(how, guest, tmp_path, modules.build()))
    start = len(ours["start"])  # Envoy starts several VMs
    assert difference(guest, envoy["start"][:start], ours["start"]) == []
    assert difference(guest, envoy["all"], ours["all"]) == []
    assert {name for name, _ in ours["start"] + ours["all"]} == reached
