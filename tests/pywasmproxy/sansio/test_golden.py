"""The golden cases on the core alone: real guests, Envoy's recorded answers, no sockets and no waiting.

The same cases run through the whole proxy in tests/replay; here a failure is the core's own, and it is fast.
Client, upstream and the framing of HTTP/1 (which the server's codec adds) are played by this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.registry import VmRegistry
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config import load as load_config
from pywasmproxy.config.model import WasmFilter, WasmPlugin
from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.dispatcher import Dispatcher
from pywasmproxy.sansio.wasm import WasmFilterFactory
from tests.pywasmproxy.sansio.driver import Clock, Exchange
from tests.replay import modules
from tests.replay.cases import GOLDEN, Case, load, load_gaps
from tests.replay.compare import Seen, compare
from tests.replay.render import render

PORTS = {"listener": 10000, "upstream": 18080, "dead": 1}
PIECE = 256 * 1024

FILES = ("seed", "headers", "body", "local_response", "chain", "trailers", "flow", "failure")
STARTING = [
    case
    for name in FILES
    for case in load(GOLDEN / f"{name}.json")
    if case.data["expect"]["started"] and not case.is_tcp and case.name not in load_gaps()
]


class QuietHost(MemoryHost):
    """The in-memory host on a test's clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def monotonic_ns(self) -> int:
        return self.clock.monotonic_ns()


class Stage:
    """A case's chain with its guests, and a client and an upstream that play the case."""

    def __init__(self, case: Case, filters: Path) -> None:
        self.case = case
        self.clock = Clock()
        self.host = QuietHost(self.clock)
        self.registry = VmRegistry()
        self.seen = Seen(started=True)
        bootstrap = load_config(render(case, filters, PORTS))
        self.http = bootstrap.listeners[0].http
        dispatcher = Dispatcher()
        factories = [
            self._factory(one.plugin, dispatcher)
            for one in self.http.http_filters
            if isinstance(one, WasmFilter)
        ]
        self.chain = FilterChain(factories, http=self.http, surroundings=self.clock)
        self.node = bootstrap.node.as_dict()
        self._take_logs()  # those of the start: compared where the start is tested

    def _factory(self, config: WasmPlugin, dispatcher: Dispatcher) -> WasmFilterFactory:
        current: list[Plugin] = []

        def start() -> None:
            current[:] = [self._plugin(config)]

        start()
        return WasmFilterFactory(
            lambda: current[0],
            dispatcher,
            policy=config.failure_policy,
            fail_open=config.fail_open,
            restart=start,
            reload_after=config.reload_base_interval,
        )

    def _plugin(self, config: WasmPlugin) -> Plugin:
        return self.registry.plugin(
            config.code.data,
            name=config.name,
            root_id=config.root_id,
            config=config.configuration,
            vm_id=config.vm_id,
            vm_config=config.vm_configuration,
            host=self.host,
            capabilities=config.allowed_capabilities,
            allow_on_headers_stop_iteration=config.allow_on_headers_stop_iteration,
        )

    def _take_logs(self) -> list[dict[str, str]]:
        lines = [
            {"level": r.level.name.lower(), "prefix": r.prefix, "message": r.message}
            for r in self.host.records
        ]
        self.host.records.clear()
        return lines

    # --- one request ----------------------------------------------------------------------------------------

    def play(self) -> None:
        for asked in self.case.requests:
            self.clock.advance(round(asked.get("sleep", 0) * 1000))
            self._exchange(asked)
            self.seen.request_logs.append(self._take_logs())
        self.seen.host_errors = [line.partition("\n")[0] for line in self.host.errors]

    def _exchange(self, asked: dict[str, Any]) -> None:
        info = StreamInfo(
            protocol="HTTP/1.1",
            source_address="127.0.0.1:50000",
            destination_address="127.0.0.1:10000",
            node=self.node,
        )
        exchange = Exchange(self.chain, info)
        head, pieces, trailers = self._request(asked)
        bodiless = not pieces and trailers is None
        exchange.feed(ev.RequestHeaders(HeaderMap(head), bodiless))
        for piece in pieces:
            if exchange.promises.done:
                break
            exchange.feed(ev.RequestBody(piece))
        if not bodiless and not exchange.promises.done:
            if trailers is not None and self.http.http1.enable_trailers:
                exchange.feed(ev.RequestTrailers(HeaderMap(trailers)))
            else:
                exchange.feed(ev.RequestBody(b"", True))
        if "SendUpstreamHeaders" in exchange.kinds():
            self._upstream(exchange)
        if not exchange.promises.done:
            exchange.feed(ev.DownstreamClosed())
            self.seen.responses.append({"no_response": "timeout"})
        else:
            self.seen.responses.append(self._received(exchange, head))

    @staticmethod
    def _request(
        asked: dict[str, Any],
    ) -> tuple[list[tuple[str, str]], list[bytes], list[tuple[str, str]] | None]:
        lines = [(name.lower(), value) for name, value in asked.get("headers", [])]
        host = dict(lines).get("host", "test.local")
        pseudo = [
            (":authority", host),
            (":path", asked.get("path", "/")),
            (":method", asked.get("method", "GET")),
        ]
        lines = [line for line in lines if line[0] != "host"]
        trailers = [(n, v) for n, v in asked["trailers"]] if "trailers" in asked else None
        pieces: list[bytes] = []
        if "chunks" in asked or trailers is not None:
            pieces = [text.encode() for text in asked.get("chunks", [asked.get("body", "")])]
            lines.append(("transfer-encoding", "chunked"))
        elif "body" in asked or "body_repeat" in asked:
            text, times = asked.get("body_repeat", [asked.get("body"), 1])
            body = text.encode() * times
            pieces = [body[at : at + PIECE] for at in range(0, len(body), PIECE)]
            lines.append(("content-length", str(len(body))))
        return pseudo + lines, pieces, trailers

    # --- the upstream's side --------------------------------------------------------------------------------

    def _upstream(self, exchange: Exchange) -> None:
        sent = exchange.only(do.SendUpstreamHeaders)
        if exchange.promises.upstream == "reset":
            return  # given up before there was a connection
        if sent.cluster == "dead":
            exchange.feed(ev.UpstreamFailed(ev.UpstreamFailure.CONNECT_FAILURE))
            return
        complete = self._record(exchange, sent)
        if not complete:
            return
        exchange.feed(ev.UpstreamConnected("127.0.0.1:18080", "127.0.0.1:40000"))
        script = self.case.data["upstream"]
        if script.get("reset"):
            exchange.feed(ev.UpstreamFailed(ev.UpstreamFailure.RESET))
            return
        lines = [(name.lower(), value) for name, value in script.get("headers", [])]
        chunked = "chunks" in script or "trailers" in script
        body = script.get("body", "").encode()
        lines.append(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body))))
        pieces = [text.encode() for text in script["chunks"]] if "chunks" in script else [body]
        bodiless = sent.headers[":method"] == "HEAD" or pieces == [b""]
        headers = HeaderMap([(":status", str(script.get("status", 200))), *lines])
        exchange.feed(ev.ResponseHeaders(headers, bodiless))
        if bodiless:
            return
        for piece in pieces:
            exchange.feed(ev.ResponseBody(piece))
        if "trailers" in script and self.case.data.get("upstream_http1_trailers"):
            exchange.feed(ev.ResponseTrailers(HeaderMap([(n, v) for n, v in script["trailers"]])))
        else:
            exchange.feed(ev.ResponseBody(b"", True))

    def _record(self, exchange: Exchange, sent: do.SendUpstreamHeaders) -> bool:
        """Note what the upstream received, as it would have on the wire; whether that was all."""
        method, path, lines = sent.headers[":method"], sent.headers[":path"], _fields(sent.headers)
        lines = [["host", sent.headers[":authority"]], *lines]
        length = sent.headers.get("content-length")
        chunked = length is None and not sent.end_of_stream
        if chunked:
            lines.append(["transfer-encoding", "chunked"])
        body = exchange.uploaded[: None if length is None else int(length)]
        record: dict[str, Any] = {"method": method, "path": path, "headers": lines, "body": body.decode()}
        for command in exchange.commands:
            if isinstance(command, do.SendUpstreamTrailers) and chunked:
                record["trailers"] = _fields(command.trailers)
        complete = exchange.promises.upstream == "complete"
        if complete or not chunked:
            self.seen.upstream_requests.append(record)
        return complete

    # --- the client's side ----------------------------------------------------------------------------------

    @staticmethod
    def _received(exchange: Exchange, asked: list[tuple[str, str]]) -> dict[str, Any]:
        """The response as it would arrive over HTTP/1."""
        if "SendDownstreamHeaders" not in exchange.kinds():
            return {"no_response": "closed"}
        head = exchange.only(do.SendDownstreamHeaders)
        status, lines = int(head.headers[":status"]), _fields(head.headers)
        to_head = (":method", "HEAD") in asked
        length = head.headers.get("content-length")
        chunked = False
        if length is None and status >= 200 and status != 204:
            if head.end_of_stream and not to_head:
                lines.append(["content-length", "0"])
            else:
                lines.append(["transfer-encoding", "chunked"])
                chunked = not to_head
        response: dict[str, Any] = {"status": status, "headers": lines}
        whole = b"" if to_head or status in (204, 304) else exchange.body
        body = whole[: None if length is None else int(length)]
        response["body"] = body.decode("utf-8")
        if status < 200 or (length is not None and len(body) < int(length) and body):
            response["body"] = "<never completes>"
        if exchange.promises.client == "reset":
            response["truncated"] = True
        for command in exchange.commands:
            if isinstance(command, do.SendDownstreamTrailers) and chunked:
                response["trailers"] = _fields(command.trailers)
        return response


def _fields(headers: HeaderMap) -> list[list[str]]:
    return [
        [name.decode("latin-1"), value.decode("latin-1")] for name, value in headers.lines if name[:1] != b":"
    ]


@pytest.fixture(scope="module")
def built() -> Path:
    return modules.build()


@pytest.mark.npm
@pytest.mark.parametrize("case", STARTING, ids=lambda case: case.name)
def test_case(case: Case, built: Path) -> None:
    stage = Stage(case, built)
    stage.play()
    expect = {**case.expected(of_envoy=False), "startup_log": [], "after_log": []}
    assert compare(case, expect, stage.seen, PORTS) == []
