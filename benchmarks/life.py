"""The life of a filter on any engine: loading, set-up, requests; every phase timed and checked.

Two filters are known: the AssemblyScript one of the example (`Seed`) and the Go plugins of
`gpustack-higress-plugins` (`Go`). The order of the calls is proxy-wasm's (specification 0.2.1, "Lifecycle").
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks import engines, stubs, timing

SEED = Path(__file__).resolve().parents[1] / "examples" / "add-header" / "add-header.wasm"

#: Of the seed filter: ten log lines and the header, in one request.
SEED_CALLS = 11

PLUGINS = {"set-header": "gpustack-set-header-pre-route", "ai-proxy": "gpustack-ai-proxy"}

#: What they answer to being configured with nothing, and to request headers. The first wants a configuration.
ANSWERS = {"set-header": (0, 0), "ai-proxy": (1, 0)}

#: How often each asks for a header in one request.
HEADERS_READ = 10

#: Seconds by name.
Times = dict[str, float]


class Seed:
    """The AssemblyScript filter: 17 KB, adds the header `hi` with its configuration as the value."""

    configuration = b"abcd"

    def __init__(self, load: engines.Load) -> None:
        begin = timing.clock()
        self.host = stubs.SeedHost(self.configuration)
        self.guest = self.host.guest = load(SEED.read_bytes(), self.host.imports())
        loaded = timing.clock()
        self._set_up()
        self.times: Times = {"load": loaded - begin, "setup": timing.clock() - loaded}
        self._streams = iter(range(2, 1 << 31))

    def _set_up(self) -> None:
        host, function = self.host, self.guest.function
        malloc = function("malloc")
        host.blocks = [malloc(len(b"add_header"))]
        function("proxy_on_context_create")(1, 0)
        timing.check("proxy_on_vm_start", function("proxy_on_vm_start")(1, 0), 1)
        host.blocks = [malloc(len(self.configuration))]
        timing.check("proxy_on_configure", function("proxy_on_configure")(1, len(self.configuration)), 1)
        self._create = function("proxy_on_context_create")
        self._request = function("proxy_on_request_headers")
        self._response = function("proxy_on_response_headers")
        self._done, self._log = function("proxy_on_done"), function("proxy_on_log")
        self._delete = function("proxy_on_delete")

    def request(self) -> float:
        """Seconds of one request; `response_headers` is what that callback took of them."""
        stream, host = next(self._streams), self.host
        host.calls, host.added = 0, None
        begin = timing.clock()
        self._create(stream, 1)
        self._request(stream, 3, 1)
        before = timing.clock()
        self._response(stream, 3, 0)
        after = timing.clock()
        self._done(stream)
        self._log(stream)
        self._delete(stream)
        end = timing.clock()
        timing.check("the header", host.added, (b"hi", self.configuration))
        timing.check("calls of the host", host.calls, SEED_CALLS)
        self.response_headers = after - before
        return end - begin


def plugin(name: str) -> bytes:
    """A Go plugin. Raises FileNotFoundError when the package is not installed."""
    spec = importlib.util.find_spec("gpustack_higress_plugins")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("gpustack-higress-plugins is not installed")
    [path] = Path(spec.origin).parent.glob(f"plugins/{PLUGINS[name]}/*/plugin.wasm")
    return path.read_bytes()


class Go:
    """A Go plugin of megabytes: `_initialize` starts its runtime. No headers, no configuration."""

    def __init__(self, name: str, load: engines.Load) -> None:
        data = plugin(name)
        answer, self._action = ANSWERS[name]
        begin = timing.clock()
        self.host = stubs.GoHost()
        self.guest = self.host.guest = load(data, self.host.imports())
        loaded = timing.clock()
        function = self.guest.function
        if not getattr(self.guest, "restored", False):
            function("_initialize")()
        initialised = timing.clock()
        function("proxy_on_context_create")(1, 0)
        timing.check("proxy_on_vm_start", function("proxy_on_vm_start")(1, 0), 1)
        timing.check("proxy_on_configure", function("proxy_on_configure")(1, 0), answer)
        configured = timing.clock()
        self.times: Times = {
            "load": loaded - begin,
            "initialise": initialised - loaded,
            "configure": configured - initialised,
        }
        self._streams = iter(range(2, 1 << 31))

    def request(self) -> float:
        """Seconds of one request."""
        stream, function, calls = next(self._streams), self.guest.function, self.host.calls
        calls.clear()
        begin = timing.clock()
        function("proxy_on_context_create")(stream, 1)
        action = function("proxy_on_request_headers")(stream, 0, 1)
        function("proxy_on_done")(stream)
        function("proxy_on_log")(stream)
        function("proxy_on_delete")(stream)
        end = timing.clock()
        timing.check("proxy_on_request_headers", action, self._action)
        timing.check("headers read", calls["proxy_get_header_map_value"], HEADERS_READ)
        return end - begin
