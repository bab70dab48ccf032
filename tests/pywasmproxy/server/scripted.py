"""`Scripted`: a guest of a running proxy whose callbacks are functions of the test.

The rig's module (tests/abi/rig.py) is configured like any filter. What its callbacks log comes to the proxy's
log while the guest runs, and from there the test's functions are called: they use host functions as a guest
would, in the real proxy, on real sockets.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from abi.proxy_wasm.plugin import Plugin
from abi.proxy_wasm.protobuf import field
from abi.proxy_wasm.types import LogLevel
from abi.proxy_wasm.versions import AbiVersion
from abi.proxy_wasm.vm import Vm
from abi.proxy_wasm.wire import encode_map
from pywasmproxy.server.log import Log
from tests.abi.rig import BYTES, WORD, Hands, module_text
from tests.support.wat import wat

REQUEST, RESPONSE = "proxy_on_request_headers", "proxy_on_response_headers"
ANSWERED = "proxy_on_http_call_response"
_CALLBACK = re.compile(r"wasm log(?: [^:\n]*)?: (proxy_on_\w+)$", re.MULTILINE)


class Scripted(Hands):
    """One scripted guest, in as many VMs as the proxy makes. Functions get the callback's arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: AbiVersion = AbiVersion.V0_2_1) -> None:
        super().__init__()
        self.version = version
        self.lines: list[str] = []
        self.entries: list[tuple[str, tuple[int, ...]]] = []
        """Every callback with its arguments, in order."""
        self._scripts: dict[str, Callable[..., object]] = {}
        self._arguments: list[tuple[int, ...]] = []
        call = Vm.call

        def noted(vm: Vm, context: Any, name: str, *arguments: int, default: int = 0) -> int:
            self.vm = vm
            self._arguments.append(arguments)
            try:
                return call(vm, context, name, *arguments, default=default)
            finally:
                self._arguments.pop()

        monkeypatch.setattr(Vm, "call", noted)

    def on(self, callback: str, script: Callable[..., object]) -> None:
        """What to do in a callback."""
        self._scripts[callback] = script

    def log(self) -> Log:
        """The log to give to the proxy."""
        return Log(LogLevel.DEBUG, sink=self._line)

    def _line(self, line: str) -> None:
        found = _CALLBACK.search(line)
        if found is None:
            self.lines.append(line)
            return
        arguments = self._arguments[-1]
        self.entries.append((found[1], arguments))
        if found[1] in self._scripts:
            self.results[found[1]] = self._scripts[found[1]](*arguments)

    def config(self, *, vm_id: str = "", more: str = "") -> str:
        """The configuration of an HTTP filter with this guest."""
        code = base64.b64encode(wat(module_text(self.version))).decode()
        return f"""
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: scripted
      {more}
      vm_config:
        vm_id: "{vm_id}"
        runtime: envoy.wasm.runtime.v8
        code: {{local: {{inline_bytes: "{code}"}}}}
"""

    # --- what scripts do ----------------------------------------------------------------------------------

    @property
    def plugin(self) -> Plugin:
        plugin = self.vm.current.plugin
        assert plugin is not None
        return plugin

    def entered_with(self, callback: str) -> list[tuple[int, ...]]:
        """The arguments of every call of a callback, without the context."""
        return [arguments[1:] for name, arguments in self.entries if name == callback]

    def http_call(
        self,
        path: str = "/call",
        *,
        cluster: str = "up",
        method: str = "GET",
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        trailers: Iterable[tuple[bytes, bytes]] = (),
        timeout: int = 2000,
    ) -> int:
        """Begin an HTTP call; its token."""
        head = [(b":method", method.encode()), (b":path", path.encode()), (b":authority", b"call.test")]
        status, token = self.ask(
            "proxy_http_call",
            cluster.encode(),
            encode_map([*head, *headers]),
            body,
            encode_map(trailers),
            timeout,
            WORD,
        )
        assert status == 0
        return int(token)

    def grpc_call(
        self, method: str = "unary", message: bytes = b"hi", *, cluster: str = "up", timeout: int = 5000
    ) -> int:
        """Begin a gRPC call; its id."""
        service = field(1, field(1, cluster))
        status, token = self.ask(
            "proxy_grpc_call", service, b"s", method.encode(), b"", message, timeout, WORD
        )
        assert status == 0
        return int(token)

    def grpc_stream(
        self, method: str = "bidi", *messages: bytes, cluster: str = "up", end: bool = False
    ) -> int:
        """Open a gRPC stream and send messages; its id."""
        service = field(1, field(1, cluster))
        status, token = self.ask("proxy_grpc_stream", service, b"s", method.encode(), b"", WORD)
        assert status == 0
        for number, message in enumerate(messages, 1):
            self.grpc_send(token, message, end and number == len(messages))
        return int(token)

    def grpc_send(self, token: int, message: bytes, end: bool = False) -> int:
        """Send a message on a stream; the status."""
        return int(self.ask("proxy_grpc_send", token, message, int(end)))

    def pause(self, callback: str = REQUEST) -> None:
        """Let a callback return PAUSE from now on."""
        self.returns(callback, 1)

    def result(self) -> tuple[int, bytes]:
        """What `proxy_get_status` answers."""
        _, code, message = self.ask("proxy_get_status", WORD, BYTES)
        return code, message

    def act_on(self, context: int) -> bool:
        """Act on a stream; whether it still lives."""
        return bool(self.ask("proxy_set_effective_context", context) == 0)

    def go_on(self, context: int, kind: int = 0) -> None:
        """Continue a stream."""
        if self.act_on(context):
            self.ask("proxy_continue_stream", kind)

    def reply(self, context: int, status: int, body: bytes = b"") -> None:
        """Answer a stream's client."""
        if self.act_on(context):
            self.ask("proxy_send_local_response", status, b"", body, b"", 0xFFFFFFFF)

    def answer(self) -> tuple[str, bytes]:
        """Status and body of the HTTP call's response that came."""
        answer = self.plugin.answer
        assert answer is not None
        headers = answer.maps.get(6)
        status = "none" if headers is None else headers[":status"]
        return status, answer.buffers.get(4, b"")
