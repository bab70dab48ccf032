"""Log lines as JSON: one object a line, with what a guest's line is about in fields of its own."""

from __future__ import annotations

import json

from abi.proxy_wasm.host import LogPrefix
from abi.proxy_wasm.types import LogLevel
from pywasmproxy.server.log import Log, WasmHost
from tests.pywasmproxy.server.guests import wasm_filter
from tests.pywasmproxy.server.support import (
    Client,
    bootstrap,
    cluster,
    hello,
    listener,
    port_of,
    proxy,
    upstream,
)


def test_fields() -> None:
    lines: list[str] = []
    log = Log(LogLevel.INFO, sink=lines.append, json=True)
    log["main"].info('two\nlines and "quotes" \ud800')
    log["main"].debug("not written")
    (line,) = lines
    assert line.endswith("\n")
    assert line.count("\n") == 1
    found = json.loads(line)
    assert found["message"] == 'two\nlines and "quotes" \ud800'
    assert found["level"] == "info"
    assert found["component"] == "main"
    assert found["source"].startswith("tests/pywasmproxy/server/test_log_json.py:")
    assert found["time"].endswith("Z")
    assert set(found) == {"time", "pid", "level", "component", "source", "message"}


def test_lines_of_guests() -> None:
    lines: list[str] = []
    host = WasmHost(Log(LogLevel.DEBUG, sink=lines.append, json=True)["wasm"])
    host.log(LogLevel.INFO, LogPrefix("my filter", "root", "vm"), "said")
    host.log(LogLevel.INFO, LogPrefix("my filter", "", "vm", named=False), "said by a root context")
    host.log(LogLevel.INFO, "", "no context")
    first, second, third = (json.loads(line) for line in lines)
    assert {
        "plugin": "my filter",
        "root_id": "root",
        "vm_id": "vm",
        "message": "said",
    }.items() <= first.items()
    assert second["plugin"] == "my filter"
    assert "root_id" not in second
    assert third["message"] == "wasm log: no context"


def test_prefix_is_the_text_it_was() -> None:
    assert LogPrefix("a", "b", "c") == "a b c"
    assert LogPrefix("a", "b", "c", named=False) == "b c"
    assert LogPrefix("", "", "") == ""


async def test_every_line_of_a_running_proxy_is_an_object() -> None:
    lines: list[str] = []
    async with upstream(hello) as up:
        text = bootstrap(listener(filters=wasm_filter("trap", vm_id="v")), clusters=cluster(up.port))
        async with proxy(text, log=Log(LogLevel.TRACE, sink=lines.append, json=True)) as server:
            client = await Client.open(port_of(server))
            assert (await client.get()).status == 503
            client.close()
    found = [json.loads(line) for line in lines]
    assert any("Uncaught RuntimeError: unreachable" in one["message"] for one in found)
    assert {"http", "wasm", "main"} <= {one["component"] for one in found}
