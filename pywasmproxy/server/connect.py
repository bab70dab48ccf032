"""How connections to upstream hosts are made: TCP, and TLS where the cluster says so. asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from pywasmproxy.config.model import Cluster
from pywasmproxy.server.hosts import Host
from pywasmproxy.server.port_tls import SHUTDOWN_TIMEOUT
from pywasmproxy.tls.context import CheckedContext, client_context

HTTP_1, HTTP_2 = ("http/1.1", "http/1.0"), ("h2",)
"""Protocols that are spoken, in the names of ALPN (RFC 7301)."""

UNSENT = 64 * 1024
"""Bytes that a connection holds back until whoever writes is asked to stop, if the cluster wants no less."""


class Connector:
    """Makes the connections of one cluster."""

    def __init__(self, config: Cluster) -> None:
        self._config = config
        self._contexts: dict[tuple[str, ...] | None, CheckedContext] = {}

    async def connect(
        self,
        host: Host,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        alpn: tuple[str, ...] | None = None,
        port: int | None = None,
    ) -> None:
        """Connect a protocol to a host; TLS is ready, and the host is the right one, when it hears of it.

        `alpn`: the protocols that it speaks; None: any. The caller limits the time. OSError, of which
        `ssl.SSLError` is one kind.
        """
        options: dict[str, Any] = {}
        tls = self._config.tls
        if tls is not None:
            options = {
                "ssl": self._context(alpn),
                "server_hostname": host.hostname if tls.auto_host_sni and host.hostname else tls.sni,
                "ssl_handshake_timeout": self._config.connect_timeout + 1,  # the caller's comes first
                "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT,
            }
        transport, _ = await asyncio.get_running_loop().create_connection(
            protocol, host.host, host.port if port is None else port, **options
        )
        if self._config.buffer_limit < UNSENT:
            transport.set_write_buffer_limits(self._config.buffer_limit)

    def _context(self, alpn: tuple[str, ...] | None) -> CheckedContext:
        tls = self._config.tls
        if tls is None:
            raise ValueError("the cluster does not use TLS")
        found = self._contexts.get(alpn)
        if found is None:
            found = self._contexts[alpn] = client_context(tls, _offered(tls.options.alpn, alpn))
        return found


def _offered(configured: Iterable[str], spoken: tuple[str, ...] | None) -> list[str]:
    """What the upstream is offered: what is configured, as far as it is spoken; HTTP/2 must be offered."""
    if spoken is None:
        return list(configured)
    if spoken == HTTP_2:
        return list(spoken)
    return [one for one in configured if one in spoken]


def reason(error: OSError) -> str:
    """Why a connection could not be made, as Envoy words it."""
    if isinstance(error, ssl.SSLError):
        what = error.args[-1] if error.args else "handshake"
        return f"TLS_error:|{getattr(error, 'reason', None) or 'HANDSHAKE_FAILED'}:{what}:TLS_error_end"
    return f"delayed connect error: {error.strerror or error}"
