"""TLS of a port: the filter chain, and with it the certificate, by the name that a client asks for.

OpenSSL lets a session change its certificate when the name is known, not whether it asks for the client's,
nor which versions it speaks. So sessions begin with what any of the chains allows, and what the chain at hand
wants is looked at when the handshake is over (`pywasmproxy.tls.context`).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from pywasmproxy.config.model import FilterChain
from pywasmproxy.config.model import Listener as ListenerConfig
from pywasmproxy.tls.context import CheckedContext, CheckedSession, server_context

HANDSHAKE_TIMEOUT = 15.0
"""Seconds for a client's handshake, unless `transport_socket_connect_timeout` says otherwise."""

SHUTDOWN_TIMEOUT = 1.0
"""Seconds for a peer to confirm the end of a session."""


def chain_for(chains: Sequence[FilterChain], name: str | None) -> int | None:
    """The index of the chain for a name: exact, then the longest wildcard, then the one for all names."""
    wanted = (name or "").lower()
    patterns = [wanted]
    rest = wanted
    while "." in rest:
        rest = rest.partition(".")[2]
        patterns.append("*." + rest)
    for pattern in patterns if wanted else ():
        for index, chain in enumerate(chains):
            if pattern in chain.server_names:
                return index
    return next((index for index, chain in enumerate(chains) if not chain.server_names), None)


class PortTls:
    """The TLS contexts of a port."""

    def __init__(self, config: ListenerConfig) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sslobject_class = CheckedSession
        self.context.sni_callback = self._choose
        self._config: ListenerConfig | None = None
        self._contexts: list[CheckedContext] = []
        self.serve(config)

    def serve(self, config: ListenerConfig) -> None:
        """From now on do this with sessions that begin."""
        if config == self._config:
            return
        contexts = [server_context(chain.tls) for chain in config.filter_chains if chain.tls is not None]
        modes = {one.verify_mode for one in contexts}
        self.context.verify_mode = modes.pop() if len(modes) == 1 else ssl.CERT_OPTIONAL
        self.context.minimum_version = min(one.low for one in contexts)
        self.context.maximum_version = max(one.high for one in contexts)
        self._config, self._contexts = config, contexts

    @property
    def options(self) -> dict[str, Any]:
        """What an event loop has to know to accept connections."""
        config = self._config
        timeouts = [] if config is None else [chain.handshake_timeout for chain in config.filter_chains]
        return {
            "ssl": self.context,
            "ssl_handshake_timeout": max((one or HANDSHAKE_TIMEOUT for one in timeouts), default=None),
            "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT,
        }

    def _choose(self, session: Any, name: str | None, _: ssl.SSLContext) -> int | None:
        config = self._config
        index = None if config is None else chain_for(config.filter_chains, name)
        if index is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        session.requested_server_name = name
        session.context = self._contexts[index]
        return None
