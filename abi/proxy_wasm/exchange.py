"""One HTTP exchange through one plugin, played by hand: what `filter run` does and shows.

A small stand-in for the proxy's filter chain: every body arrives in one piece, a pause that nobody ends
leaves the exchange where it is, and a local response passes the filter's own response callbacks as in Envoy.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from abi.proxy_wasm.contexts import HttpContext
from abi.proxy_wasm.deferred import CloseStream, ContinueStream, LocalResponse
from abi.proxy_wasm.failures import PluginFailure
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.host import MemoryHost
from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.stream_info import StreamInfo
from abi.proxy_wasm.types import Action, StreamType

Lines = Sequence[tuple[str, str]]


class Message:
    """A request or a response: what went in, and what it has become."""

    def __init__(self, headers: Lines, body: bytes = b"", trailers: Lines = ()) -> None:
        self.headers, self.body = HeaderMap(headers), bytearray(body)
        self.trailers: HeaderMap | None = HeaderMap(trailers) if trailers else None
        self.headers_before, self.body_before = self.headers.copy(), bytes(body)
        self.trailers_before = HeaderMap(trailers)


@dataclass
class Step:
    """One callback and its answer."""

    callback: str
    action: Action


@dataclass
class Exchange:
    """The whole story of one exchange. `outcome` is "complete", "paused", "closed" or "failed"."""

    plugin: Plugin
    request: Message
    response: Message
    steps: list[Step] = field(default_factory=list)
    local_response: LocalResponse | None = None
    outcome: str = "complete"
    failure: PluginFailure | None = None
    reached_response: bool = False

    def run(self) -> None:
        """Play all callbacks in the order of an exchange."""
        info = StreamInfo(protocol="HTTP/1.1", start_time=self.plugin.vm.host.wall_clock_ns())
        context = self.plugin.http_stream(info)
        try:
            if self._request(context, info):
                self._respond(context, info)
            context.on_log()
            context.on_done()
            context.on_delete()
        except PluginFailure as error:
            self.failure, self.outcome = error, "failed"

    def _request(self, context: HttpContext, info: StreamInfo) -> bool:
        """The request side; whether a response follows."""
        message, over = self.request, context.request_phase_over
        info.request_body_size = len(message.body)
        last = not message.body and message.trailers is None
        callbacks: list[tuple[str, Callable[[], Action]]] = [
            ("request headers", lambda: context.on_request_headers(message.headers, last))
        ]
        if message.body:
            end = message.trailers is None
            callbacks.append(("request body", lambda: context.on_request_body(message.body, end)))
        if message.trailers is not None:
            trailers = message.trailers
            callbacks.append(("request trailers", lambda: context.on_request_trailers(trailers)))
        if not self._play(callbacks, StreamType.HTTP_REQUEST, over):
            return False
        message.trailers = info.request_trailers
        return True

    def _respond(self, context: HttpContext, info: StreamInfo) -> None:
        """The response side; played a second time when the filter answers by itself in between."""
        if self.local_response is not None:
            self._answer_locally(self.local_response)
        self.reached_response = True
        before = self.local_response
        message, over = self.response, context.response_phase_over
        info.response_body_size = len(message.body)
        status = message.headers.first(b":status") or b""
        info.response_code = int(status) if status.isdigit() else None
        info.response_code_details = "via_upstream" if before is None else before.details.decode("latin-1")
        last = not message.body and message.trailers is None
        callbacks: list[tuple[str, Callable[[], Action]]] = [
            ("response headers", lambda: context.on_response_headers(message.headers, last))
        ]
        if message.body:
            end = message.trailers is None
            callbacks.append(("response body", lambda: context.on_response_body(message.body, end)))
        if message.trailers is not None:
            trailers = message.trailers
            callbacks.append(("response trailers", lambda: context.on_response_trailers(trailers)))
        self._play(callbacks, StreamType.HTTP_RESPONSE, over)
        message.trailers = info.response_trailers
        if self.local_response is not before and self.local_response is not None:
            # In place of the upstream's response; the filter does not see it, as in Envoy.
            self._answer_locally(self.local_response)

    def _answer_locally(self, local: LocalResponse) -> None:
        lines = [(":status", str(local.status))]
        self.response = Message(lines, local.body)
        for name, value in local.headers.lines:
            self.response.headers.add(name, value)
        self.response.headers_before = self.response.headers.copy()

    def _play(
        self,
        callbacks: Iterable[tuple[str, Callable[[], Action]]],
        side: StreamType,
        phase_over: Callable[[], None],
    ) -> bool:
        """Run the callbacks of one side; whether the exchange goes on to the next side."""
        held = False
        for name, callback in callbacks:
            action = callback()
            self.steps.append(Step(name, action))
            continued = self._drain(side)
            if self.outcome == "closed":
                return False
            if self.local_response is not None and not self.reached_response:
                phase_over()
                return True
            held = action.paused and not continued
            if held and action is not Action.STOP_ITERATION:
                break
            if not held:
                phase_over()
        if held:
            self.outcome = "paused"
        return not held

    def _drain(self, side: StreamType) -> bool:
        """Do what the guest asked for; whether it continued this side."""
        continued = False
        deferred = self.plugin.vm.deferred
        while deferred:
            wish = deferred.popleft()
            if isinstance(wish, ContinueStream):
                continued = continued or wish.stream_type is side
            elif isinstance(wish, CloseStream):
                self.outcome = "closed"
            elif isinstance(wish, LocalResponse):
                self.local_response = wish
        return continued


# --- output ---------------------------------------------------------------------------------------------


def _texts(fields: HeaderMap | None) -> list[tuple[str, str]]:
    lines = [] if fields is None else fields.lines
    return [(n.decode("utf-8", "backslashreplace"), v.decode("utf-8", "backslashreplace")) for n, v in lines]


def _difference(before: HeaderMap, after: HeaderMap | None) -> list[str]:
    """All lines, with `+` and `-` in front of those that came and went."""
    old = [f"{name}: {value}" for name, value in _texts(before)]
    new = [f"{name}: {value}" for name, value in _texts(after)]
    out = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            out += [f"    {line}" for line in old[a:b]]
        else:
            out += [f"  - {line}" for line in old[a:b]] + [f"  + {line}" for line in new[c:d]]
    return out


def _body_lines(title: str, message: Message) -> list[str]:
    if bytes(message.body) == message.body_before:
        return [f"{title}: {len(message.body)} bytes, unchanged"] if message.body else []
    text = message.body.decode("utf-8", "backslashreplace")
    return [f"{title}: {len(message.body_before)} bytes became {len(message.body)}", f"  + {text}"]


def _side(name: str, message: Message) -> list[str]:
    lines = [f"{name} headers", *_difference(message.headers_before, message.headers)]
    lines += _body_lines(f"{name} body", message)
    if message.trailers is not None:
        lines += [f"{name} trailers", *_difference(message.trailers_before, message.trailers)]
    return lines


def show(exchange: Exchange, host: MemoryHost) -> str:
    """The exchange as text for people."""
    lines = _side("request", exchange.request)
    if exchange.reached_response:
        lines += _side("local response" if exchange.local_response else "response", exchange.response)
    lines += ["callbacks", *(f"    {step.callback}: {step.action.value}" for step in exchange.steps)]
    if exchange.outcome != "complete":
        lines.append(f"the exchange is {exchange.outcome}")
    if host.records:
        lines += ["log", *(f"    {record.level.name.lower():8} {record}" for record in host.records)]
    lines += [f"    error    {line}" for line in host.errors]
    return "\n".join(lines)


def _message_json(message: Message) -> dict[str, object]:
    return {
        "headers_before": _texts(message.headers_before),
        "headers": _texts(message.headers),
        "body_before": message.body_before.decode("utf-8", "backslashreplace"),
        "body": message.body.decode("utf-8", "backslashreplace"),
        "trailers": None if message.trailers is None else _texts(message.trailers),
    }


def to_json(exchange: Exchange, host: MemoryHost) -> str:
    """The exchange as one JSON object for programs."""
    local = exchange.local_response
    return json.dumps(
        {
            "abi_version": str(exchange.plugin.vm.version),
            "outcome": exchange.outcome,
            "request": _message_json(exchange.request),
            "response": _message_json(exchange.response) if exchange.reached_response else None,
            "actions": [[step.callback, step.action.value] for step in exchange.steps],
            "local_response": None
            if local is None
            else {
                "status": local.status,
                "details": local.details.decode("utf-8", "backslashreplace"),
                "body": local.body.decode("utf-8", "backslashreplace"),
                "headers": _texts(local.headers),
                "grpc_status": local.grpc_status,
            },
            "logs": [[r.level.name.lower(), r.prefix, r.message] for r in host.records],
            "errors": list(host.errors),
        },
        ensure_ascii=False,
    )
