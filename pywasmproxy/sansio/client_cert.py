"""`x-forwarded-client-cert`: what upstreams are told about a client's certificate, and nobody else may say.

Source: envoy.extensions...http_connection_manager.v3, `forward_client_cert_details`; Envoy 1.40.
A field that arrives is believed only where the configuration says so: whoever could write it himself would be
whoever he likes.
"""

from __future__ import annotations

from abi.proxy_wasm.stream_info import StreamInfo, TlsFacts
from pywasmproxy.config.model_manager import ClientCertMode, ClientCertRules

FIELD = b"x-forwarded-client-cert"

Line = tuple[bytes, bytes]


def forwarded(rules: ClientCertRules, fields: list[Line], info: StreamInfo) -> list[Line]:
    """The fields of a request with the one that the rules want, or without it."""
    mode, session = rules.mode, info.downstream_tls
    if mode is ClientCertMode.ALWAYS_FORWARD_ONLY:
        return fields
    mutual = session is not None and session.peer is not None
    if mutual and mode is ClientCertMode.FORWARD_ONLY:
        return fields
    others = [line for line in fields if line[0] != FIELD]
    if session is None or session.peer is None or mode is ClientCertMode.SANITIZE:
        return others
    values = [_element(rules.details, session)]
    if mode is ClientCertMode.APPEND_FORWARD:
        values[:0] = [value for name, value in fields if name == FIELD]
    return [*others, (FIELD, b",".join(values))]


def _element(details: frozenset[str], session: TlsFacts) -> bytes:
    """One element: who was asked, and who came."""
    peer, local = session.peer, session.local
    parts = [f"By={uri}" for uri in (local.uris if local is not None else ())]
    if peer is not None:
        parts.append(f"Hash={peer.sha256}")
        if "subject" in details:
            parts.append(f'Subject="{peer.subject}"')  # quotes in it have their backslash already
        if "uri" in details:
            parts += [f"URI={uri}" for uri in peer.uris] or ["URI="]
        if "dns" in details:
            parts += [f"DNS={name}" for name in peer.dns_names]
    return ";".join(parts).encode("utf-8", "surrogateescape")
