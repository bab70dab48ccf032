"""`proxy_http_call`: a request of the guest's own to one of the proxy's clusters.

Source: proxy-wasm specification 0.2.1, "HTTP calls"; which arguments are refused, and with which status, is
as measured on Envoy 1.40 (golden `call_errors`). The request leaves through `Vm.deferred`; the answer comes
to the plugin's root context (`Plugin.http_call_response`), whoever asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from abi.hostcall import I32, Bytes, OutToken, proxy_call
from abi.proxy_wasm.callouts import HTTP_CALL
from abi.proxy_wasm.calls.http_fields import clean, joined_map
from abi.proxy_wasm.deferred import HttpCall
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.types import MapType, Status
from abi.proxy_wasm.wire import decode_map

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm


@proxy_call
def proxy_http_call(
    vm: Vm, cluster: Bytes, headers: Bytes, body: Bytes, trailers: Bytes, timeout: I32
) -> Status | OutToken:
    """Send a request; its token. `timeout` is in ms, 0 is none; what is missing or unknown is BAD_ARGUMENT.

    INTERNAL_FAILURE when the VM has too many calls under way, and outside of a plugin.
    """
    plugin = vm.active.plugin
    name = cluster.decode("utf-8", "surrogateescape")
    if timeout < 0 or not vm.host.has_cluster(name):
        return Status.BAD_ARGUMENT
    lines, last = decode_map(headers), decode_map(trailers)
    if not all(clean(key) and clean(value) for key, value in (*lines, *last)):
        return Status.BAD_ARGUMENT
    request = joined_map(MapType.HTTP_REQUEST_HEADERS, lines)
    if not request.first(":path") or not request.first(":method") or request.first(":authority") is None:
        return Status.BAD_ARGUMENT
    if body:
        request.set_in_place(b"content-length", b"%d" % len(body))
    size = len(headers) + len(body) + len(trailers)
    token = None if plugin is None else vm.calls.begin(HTTP_CALL, plugin, size)
    if plugin is None or token is None:
        return Status.INTERNAL_FAILURE
    vm.deferred.append(HttpCall(plugin, token, name, request, body, HeaderMap(last), timeout))
    return token
