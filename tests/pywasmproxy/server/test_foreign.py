"""Foreign functions and filter state in the running proxy."""

from __future__ import annotations

from typing import Any

import pytest

from abi.proxy_wasm.contexts import Context
from abi.proxy_wasm.protobuf import field, varint
from pywasmproxy.server.proxy import Proxy
from tests.abi.rig import BYTES
from tests.pywasmproxy.server.scripted import REQUEST, Scripted
from tests.pywasmproxy.server.support import Client, bootstrap, listener, port_of, settled

DIRECT = '- {match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: main}}}'


def path_of(context: Context, arguments: bytes) -> bytes:
    """The embedder's function: what it knows of the exchange."""
    assert context.info is not None
    assert context.info.request_headers is not None
    return arguments + context.info.request_headers[":path"].encode()


async def test_functions_of_the_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(monkeypatch)
    answers: list[Any] = []
    guest.on(
        REQUEST,
        lambda *_: answers.append(guest.ask("proxy_call_foreign_function", b"path", b"is ", BYTES)),
    )
    text = bootstrap(listener(DIRECT, filters=guest.config()))
    made = Proxy.from_text(text, log=guest.log(), foreign_functions={"path": path_of})
    made.check()
    async with made.running() as server:
        client = await Client.open(port_of(server))
        assert (await client.get("/here")).status == 200
        client.close()
        await settled(server)
    assert answers == [(0, b"is /here")]


async def test_a_property_that_lives_as_long_as_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = Scripted(monkeypatch)
    declared = field(1, b"seen") + varint(5 << 3) + b"\x02"
    guest.on(
        "proxy_on_configure",
        lambda *_: guest.ask("proxy_call_foreign_function", b"declare_property", declared, BYTES),
    )
    answers: list[Any] = []

    def request(*_: int) -> None:
        answers.append(guest.ask("proxy_get_property", b"seen", BYTES)[1])
        assert guest.ask("proxy_set_property", b"seen", b"%d" % len(answers)) == 0

    guest.on(REQUEST, request)
    text = bootstrap(listener(DIRECT, filters=guest.config()))
    async with Proxy.from_text(text, log=guest.log()).running() as server:
        for _ in range(2):
            client = await Client.open(port_of(server))
            for _ in range(3):
                assert (await client.get()).status == 200
            client.close()
        await settled(server)
    assert answers == [None, b"1", b"2", None, b"4", b"5"]
