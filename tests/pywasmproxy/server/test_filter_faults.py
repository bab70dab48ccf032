"""What a filter may do wrong, in each of its callbacks, under each policy, with bodies of three sizes.

Always one well-formed answer or a connection that is cut, never a hang; afterwards no exchange, no connection
and no VM is left. What the answer is, where Envoy's behaviour says it, stands in `answers`.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import itertools
import weakref
from dataclasses import dataclass

import pytest

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

SIZES = (0, 5, 300_000)

LIMITS = "{id: me, metadata: {pywasmvm: {callback_time: 0.25s}}}"

OPTIONS = """
stream_idle_timeout: 1s
http_protocol_options: {enable_trailers: true}
"""


def guest(callback: str, action: str) -> bytes:
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


def wasm_filter(callback: str, action: str, policy: str) -> str:
    code = base64.b64encode(guest(callback, action)).decode()
    return f"""
- name: wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: {callback}-{action}
      {POLICIES[policy]}
      vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{inline_bytes: "{code}"}}}}}}
"""


async def mirror(visit: Visit) -> None:
    """Answers with as many bytes as it got, and a trailer; says in a header what it got."""
    while True:
        _, body = await visit.request()
        got = b"rewritten" if body and not body.replace(b"rewritten", b"") else b"%d" % len(body)
        visit.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-got: %b\r\n\r\n" % got)
        for at in range(0, len(body), 50_000):
            piece = b"a" * len(body[at : at + 50_000])
            visit.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        visit.send(b"0\r\nx-end: 1\r\n\r\n")


@dataclass
class Got:
    """What a client got: a response, complete or cut off; or nothing but the end of the connection."""

    response: Response | None

    def __str__(self) -> str:
        if self.response is None:
            return "cut"
        return f"{self.response.status}" + ("" if self.response.complete else " cut")


async def ask(port: int, size: int) -> Got:
    client = await Client.open(port)
    try:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(0, size, 50_000):
            piece = b"b" * min(50_000, size - at)
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\nx-last: 1\r\n\r\n")
        return Got(await client.response())
    except (EOFError, ConnectionError):
        return Got(None)
    finally:
        client.close()


def answers(callback: str, action: str, policy: str, size: int) -> set[str]:
    """What the first exchange may end with, as Envoy 1.40 ends it (golden: failure, flow, body)."""
    begun = callback in ("response_body", "response_trailers")  # the head of the response is out
    over = callback in ("done", "log", "delete")
    runs = size > 0 or callback not in ("request_body", "response_body")
    if not runs or over:  # with trailers behind it an empty body has no callback
        return {"200"}
    if action in ("trap", "loop"):
        if policy == "fail_open":
            return {"200"}
        return {"200 cut", "cut"} if begun else {"503"}
    if action == "pause":
        if callback.endswith("_body"):
            return {"200"}  # until the trailers come, whose callback says nothing against going on
        if callback.startswith("request"):
            return {"408", "504"}
        return {"200 cut", "cut"} if begun else {"504"}
    if action == "reply":
        return {"200 cut", "cut"} if begun else {"403"}
    return {"200"}


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_answer_or_none_and_nothing_is_left(policy: str) -> None:
    cases = list(itertools.product(CALLBACKS, ACTIONS))
    listeners = [
        listener(
            '- {match: {prefix: "/"}, route: {cluster: up, timeout: 2s}}',
            name=f"{callback}-{action}",
            filters=wasm_filter(callback, action, policy),
            options=OPTIONS,
        )
        for callback, action in cases
    ]
    enabled = "http_protocol_options: {enable_trailers: true}"
    lines, unexpected = Lines(), []
    async with upstream(mirror) as up:
        text = bootstrap(*listeners, clusters=cluster(up.port, options=enabled), node=LIMITS)
        async with proxy(text, log=lines.log()) as server:
            for size in SIZES:
                await _reload(server, text)

                async def one(callback: str, action: str, size: int = size, server: Server = server) -> None:
                    port = port_of(server, f"{callback}-{action}")
                    got = await ask(port, size)
                    allowed = answers(callback, action, policy, size)
                    if str(got) not in allowed:
                        unexpected.append(f"{callback} {action} {size}: {got}, not {sorted(allowed)}")
                    if action == "rewrite" and size and got.response is not None:
                        if callback == "request_body":
                            assert got.response.one("x-got") == "rewritten"
                        if callback == "response_body":
                            assert got.response.body.startswith(b"rewritten")
                    # Whoever comes next gets an answer, too, and the other filters never notice.
                    await ask(port, size)

                calm = [case for case in cases if case[1] != "loop"]
                await asyncio.gather(*(one(*case) for case in calm))
                if size == SIZES[1]:  # a loop stops everything for as long as it may
                    for callback in CALLBACKS:
                        await one(callback, "loop")
                await settled(server)
                server.filters.guest_ran()
                assert len(server.filters.vms) == len(cases)
            assert not unexpected, "\n".join(unexpected)
            vms = [weakref.ref(vm) for vm in server.filters.vms]
        assert server.streams == 0
    del server, one
    gc.collect()
    assert [vm() for vm in vms if vm() is not None] == []


async def _reload(server: Server, text: str) -> None:
    """Fresh VMs for all."""
    from pywasmproxy.config import load

    await server.reload(load(text))
