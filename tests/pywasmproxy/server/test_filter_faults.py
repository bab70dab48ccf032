"""What a filter may do wrong, in each of its callbacks, under each policy, with messages of many shapes.

Bodies are absent, small, large, and larger than what a connection may hold; they end with trailers, without
any, or where a content-length says so. Always one well-formed answer or a connection that is cut, never a
hang; afterwards no exchange, no connection and no VM is left. What the answer is stands in `answers`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import pytest

from abi.proxy_wasm.vm import Vm
from pywasmproxy.config import load
from pywasmproxy.server import downstream
from pywasmproxy.server.proxy import Server
from tests.pywasmproxy.server.support import (
    Client,
    Lines,
    Response,
    Visit,
    bootstrap,
    cluster,
    listener,
    port_of,
    proxy,
    settled,
    upstream,
)
from tests.support.wat import wat

CALLBACKS = {
    "request_headers": 3,
    "request_body": 3,
    "request_trailers": 2,
    "response_headers": 3,
    "response_body": 3,
    "response_trailers": 2,
    "done": 1,
    "log": 1,
    "delete": 1,
}
"""Each with the number of its parameters."""

ACTIONS = {
    "trap": "(unreachable)",
    "loop": "(loop (br 0))",
    "pause": "",
    "reply": """(drop (call $reply (i32.const 403) (i32.const 16) (i32.const 2) (i32.const 16) (i32.const 2)
                  (i32.const 0) (i32.const 0) (i32.const -1)))""",
    "rewrite": """(drop (call $set (i32.const {buffer}) (i32.const 0) (i32.const 0x7fffffff)
                  (i32.const 16) (i32.const 9)))""",
}

POLICIES = {
    "closed": "",
    "open": "failure_policy: FAIL_OPEN",
    "reload": "failure_policy: FAIL_RELOAD\n      reload_config: {backoff: {base_interval: 0.001s}}",
    "fail_open": "fail_open: true",
}

BUFFER_LIMIT = 131_072
SIZES = (0, 5, 100_000, 300_000)
FRAMINGS = ("trailers", "chunked", "length")

# Every loop ends at the same instruction, however busy the machine is.
BUDGET = "{id: me, metadata: {pywasmvm: {callback_fuel: 20000, callback_time: 60s}}}"
DEADLINE = "{id: me, metadata: {pywasmvm: {callback_time: 0.05s}}}"

OPTIONS = """
stream_idle_timeout: 1s
http_protocol_options: {enable_trailers: true}
"""

AT_A_TIME = 16
"""Exchanges with work to do: those beside them must not look idle. The ones that wait all do so at once."""


class Message(NamedTuple):
    """The body of a request, and of the response to it: how long, and how its end is told."""

    size: int
    framing: str

    def __str__(self) -> str:
        return f"{self.size} {self.framing}"


class Case(NamedTuple):
    """What the filter of a listener does, and where."""

    callback: str
    action: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def faults(self) -> bool:
        """Whether the filter is broken afterwards."""
        return self.action in ("trap", "loop")


CASES = [Case(*case) for case in product(CALLBACKS, ACTIONS)]
MESSAGES = [Message(*message) for message in product(SIZES, FRAMINGS)]


def guest(case: Case) -> bytes:
    callback, action = case
    parameters = "(param" + " i32" * CALLBACKS[callback] + ")"
    result = "" if callback in ("log", "delete") else "(result i32)"
    code = ACTIONS[action].format(buffer=0 if "request" in callback else 1)
    # 1 is PAUSE; for done it is "go on".
    back = "" if not result else f"(i32.const {int(action in ('pause', 'reply') or callback == 'done')})"
    return wat(f"""(module
      (import "env" "proxy_send_local_response"
        (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
      (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 16) "rewritten")
      (func (export "proxy_abi_version_0_2_1"))
      (func (export "malloc") (param i32) (result i32) (i32.const 1024))
      (func (export "proxy_on_{callback}") {parameters} {result} {code} {back}))""")


GUESTS = {case: base64.b64encode(guest(case)).decode() for case in CASES}


def wasm_filter(case: Case, policy: str) -> str:
    return f"""
- name: wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: {case}
      {POLICIES[policy]}
      vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{inline_bytes: "{GUESTS[case]}"}}}}}}
"""


def configuration(cases: list[Case], policy: str, port: int, node: str) -> str:
    """A listener for each case, named after it."""
    limit = f"per_connection_buffer_limit_bytes: {BUFFER_LIMIT}"
    listeners = [
        listener(
            '- {match: {prefix: "/"}, route: {cluster: up, timeout: 2s}}',
            name=str(case),
            filters=wasm_filter(case, policy),
            options=OPTIONS,
        ).replace("    filter_chains:", f"    {limit}\n    filter_chains:")
        for case in cases
    ]
    enabled = f"http_protocol_options: {{enable_trailers: true}}\n{limit}"
    return bootstrap(*listeners, clusters=cluster(port, options=enabled), node=node)


def framed(start: bytes, fields: bytes, body: bytes, framing: str, trailer: bytes) -> bytes:
    """A message on the wire."""
    if framing == "length":
        return b"%b\r\n%bcontent-length: %d\r\n\r\n%b" % (start, fields, len(body), body)
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    last = trailer if framing == "trailers" else b""
    return b"%b\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (start, fields, chunks, last)


async def mirror(visit: Visit) -> None:
    """Answers with a message of the shape that the path names; says in a header what it got."""
    while True:
        head, body = await visit.request()
        size, framing = head.split(b" ")[1].decode().strip("/").split("/")
        got = b"rewritten" if body and not body.replace(b"rewritten", b"") else b"%d" % len(body)
        fields = b"x-got: %b\r\n" % got
        visit.send(framed(b"HTTP/1.1 200 OK", fields, b"a" * int(size), framing, b"x-end: 1\r\n"))


@dataclass
class Got:
    """What a client got: a response, complete or cut off; or nothing but the end of the connection."""

    response: Response | None

    def __str__(self) -> str:
        if self.response is None:
            return "cut"
        return f"{self.response.status}" + ("" if self.response.complete else " cut")


async def ask(port: int, message: Message) -> Got:
    """Send a request, and see to it that nothing follows its answer."""
    client = await Client.open(port)
    try:
        start = f"POST /{message.size}/{message.framing} HTTP/1.1".encode()
        client.send(framed(start, b"host: a\r\n", b"b" * message.size, message.framing, b"x-last: 1\r\n"))
        got = Got(await client.response())
        client.writer.write_eof()
        assert await client.closed(), f"more than one answer: {got}"
        return got
    except (EOFError, ConnectionError):
        return Got(None)
    finally:
        client.close()


def answers(case: Case, policy: str, message: Message) -> set[str]:
    """What the first exchange may end with.

    Envoy 1.40, asked the same, ends traps, pauses and rewritings in the same way, but for responses with
    another length than they announce: there it leaves clients waiting. Some local replies end Envoy itself.
    """
    (callback, action), (size, framing) = case, message
    begun = callback in ("response_body", "response_trailers")  # the head of the response is out
    over = callback in ("done", "log", "delete")
    if callback.endswith("_body"):
        # The end of a chunked body without trailers is a callback of its own.
        runs = size > 0 or framing == "chunked"
    else:
        runs = framing == "trailers" or not callback.endswith("_trailers")
    if not runs or over:
        return {"200"}
    if case.faults:
        if policy == "fail_open":
            return {"200"}
        return {"200 cut", "cut"} if begun else {"503"}
    if action == "pause":
        if callback.endswith("_body"):
            if size > BUFFER_LIMIT:
                return {"200 cut", "cut"} if begun else {"413"}
            if framing == "trailers":
                return {"200"}  # until the trailers come, whose callback says nothing against going on
        if callback.startswith("request"):
            return {"408", "504"}
        return {"200 cut", "cut"} if begun else {"504"}
    if action == "reply":
        return {"200 cut", "cut"} if begun else {"403"}
    if action == "rewrite" and framing == "length" and size > len("rewritten"):
        # The filter left the length as it was, so that somebody waits for the rest.
        if callback == "request_body":
            return {"504"}
        if callback == "response_body":
            return {"200 cut"}
    return {"200"}


class Play:
    """Exchanges with one policy's filters, and what was unexpected in them."""

    def __init__(self, server: Server, policy: str, text: str) -> None:
        self.server, self.policy, self.text = server, policy, text
        self.unexpected: list[str] = []

    async def one(self, case: Case, message: Message) -> None:
        got = await ask(port_of(self.server, str(case)), message)
        allowed = answers(case, self.policy, message)
        if str(got) not in allowed:
            self.unexpected.append(f"{case} {message}: {got}, not {sorted(allowed)}")
        if case.action == "rewrite" and message.size and got.response is not None:
            start = b"rewritten"[: message.size if message.framing == "length" else None]
            if case.callback == "response_body" and not got.response.body.startswith(start):
                self.unexpected.append(f"{case} {message}: not rewritten")
            if case.callback == "request_body" and got.response.status == 200:
                told = got.response.one("x-got")
                if told != ("rewritten" if start == b"rewritten" else f"{len(start)}"):
                    self.unexpected.append(f"{case} {message}: {told} went upstream")

    async def all(self, pairs: list[tuple[Case, Message]]) -> None:
        """Each once: those that wait for a time-out all at once, the others a few at a time."""
        slots = asyncio.Semaphore(AT_A_TIME)

        async def work(case: Case, message: Message) -> None:
            async with slots:
                await self.one(case, message)

        late = [pair for pair in pairs if not answers(pair[0], self.policy, pair[1]) & {"200", "503"}]
        await asyncio.gather(*(work(*pair) for pair in pairs if pair not in late))
        await asyncio.gather(*(self.one(*pair) for pair in late))

    async def next_ones(self, cases: list[Case], message: Message) -> None:
        """Whoever comes after a fault gets an answer, too, or is cut off."""
        await asyncio.gather(*(ask(port_of(self.server, str(case)), message) for case in cases))

    async def left(self) -> list[weakref.ref[Vm]]:
        """The VMs, when every exchange is over: one for each filter."""
        await settled(self.server)
        self.server.filters.guest_ran()
        vms = self.server.filters.vms
        assert len(vms) == len(self.server.addresses)
        assert [list(vm.contexts) for vm in vms if vm.failure is None and len(vm.contexts) != 1] == []
        return [weakref.ref(vm) for vm in vms]

    def gone(self, vms: list[weakref.ref[Vm]]) -> bool:
        """Whether none of these is left, but those that still run: theirs did not break."""
        return all(vm() is None or vm() in self.server.filters.vms for vm in vms)


@contextlib.asynccontextmanager
async def playing(cases: list[Case], policy: str, node: str = BUDGET) -> AsyncIterator[Play]:
    """A proxy with a listener for each case; afterwards nothing unexpected was seen and no VM is left."""
    async with upstream(mirror) as up:
        text = configuration(cases, policy, up.port, node)
        async with proxy(text, log=Lines().log()) as server:
            play = Play(server, policy, text)
            yield play
            vms = await play.left()
        assert server.streams == 0
    assert not play.unexpected, "\n".join(play.unexpected)
    del server, play.server
    gc.collect()
    assert [vm() for vm in vms if vm() is not None] == []


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response that is shorter than it said is given up soon."""
    monkeypatch.setattr(downstream, "SHORT_BODY_DELAY", 0.2)


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_answer_or_none_and_nothing_is_left(policy: str) -> None:
    cases = [case for case in CASES if not case.faults]
    async with playing(cases, policy) as play:
        await play.all(list(product(cases, MESSAGES)))


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_fault_ends_in_one_answer_or_none_and_nothing_is_left(policy: str) -> None:
    cases = [case for case in CASES if case.faults]
    async with playing(cases, policy) as play:
        old: list[weakref.ref[Vm]] = []
        for message in MESSAGES:
            await play.all(list(product(cases, [message])))
            await play.next_ones(cases, message)
            old += await play.left()
            await play.server.reload(load(play.text))  # fresh VMs in the place of the broken ones
        async with asyncio.timeout(20):  # connections that are closing hold theirs for a moment
            while not play.gone(old):
                await asyncio.sleep(0.05)
                gc.collect()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_deadline_ends_what_has_no_budget(policy: str) -> None:
    """A loop stops everything for as long as it may."""
    cases = [case for case in CASES if case.action == "loop"]
    async with playing(cases, policy, DEADLINE) as play:
        await play.all(list(product(cases, [Message(5, "trailers")])))
        await play.next_ones(cases, Message(5, "trailers"))
