"""Operators of format strings about TLS: both ends' certificates, versions, cipher suites.

As measured on Envoy 1.40. Chains of certificates and groups of the key exchange are not among what Python's
`ssl` tells in all versions that we run on.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC
from urllib.parse import quote

from abi.proxy_wasm.stream_info import CertificateFacts, StreamInfo, TlsFacts
from pywasmproxy.sansio.format_parts import Make, Moment, Origin, Read, Value, plain
from pywasmproxy.sansio.format_time import DEFAULT_TIME, format_time

_Session = Callable[[StreamInfo], TlsFacts | None]
_Certificate = Callable[[StreamInfo], CertificateFacts | None]


def _downstream(info: StreamInfo) -> TlsFacts | None:
    return info.downstream_tls


def _upstream(info: StreamInfo) -> TlsFacts | None:
    return info.upstream_tls


def _peer(of: _Session) -> _Certificate:
    return lambda info: None if (session := of(info)) is None else session.peer


def _local(of: _Session) -> _Certificate:
    return lambda info: None if (session := of(info)) is None else session.local


def _session(of: _Session, what: Callable[[TlsFacts], str]) -> Make:
    return plain(lambda info: None if (session := of(info)) is None else what(session) or None)


def _certificate(of: _Certificate, what: Callable[[CertificateFacts], str]) -> Make:
    return plain(lambda info: None if (found := of(info)) is None else what(found) or None)


def _when(of: _Certificate, what: Callable[[CertificateFacts], int | None]) -> Make:
    def make(argument: str | None, origin: Origin) -> Read:
        pattern = argument or DEFAULT_TIME

        def read(info: StreamInfo, moment: Moment) -> Value:
            found = of(info)
            seconds = None if found is None else what(found)
            return None if seconds is None else format_time(seconds * 1_000_000_000, pattern, UTC)

        return read

    return make


def pem(der: bytes) -> str:
    """A certificate as text in PEM form, with percent signs for what a header may not have."""
    if not der:
        return ""
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    whole = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
    return quote(whole, safe="")


def _names(prefix: str, of: _Certificate) -> dict[str, Make]:
    """The alternative names that both sides' operators can tell."""
    return {
        f"{prefix}_DNS_SAN": _certificate(of, lambda one: ",".join(one.dns_names)),
        f"{prefix}_IP_SAN": _certificate(of, lambda one: ",".join(one.addresses)),
        f"{prefix}_URI_SAN": _certificate(of, lambda one: ",".join(one.uris)),
    }


def _peers(prefix: str, of: _Certificate) -> dict[str, Make]:
    return {
        **_names(prefix, of),
        f"{prefix}_SUBJECT": _certificate(of, lambda one: one.subject),
        f"{prefix}_ISSUER": _certificate(of, lambda one: one.issuer),
        f"{prefix}_CERT": _certificate(of, lambda one: pem(one.der)),
        f"{prefix}_CERT_V_START": _when(of, lambda one: one.not_before),
        f"{prefix}_CERT_V_END": _when(of, lambda one: one.not_after),
    }


def _sessions(prefix: str, of: _Session) -> dict[str, Make]:
    return {
        f"{prefix}_TLS_VERSION": _session(of, lambda one: one.version),
        f"{prefix}_TLS_CIPHER": _session(of, lambda one: one.cipher),
        f"{prefix}_TLS_SESSION_ID": _session(of, lambda one: one.session_id),
    }


_CLIENT, _OURS = _peer(_downstream), _local(_downstream)

TLS: Mapping[str, Make] = {
    **_sessions("DOWNSTREAM", _downstream),
    **_sessions("UPSTREAM", _upstream),
    **_peers("DOWNSTREAM_PEER", _CLIENT),
    **_peers("UPSTREAM_PEER", _peer(_upstream)),
    **_names("DOWNSTREAM_LOCAL", _OURS),
    **_names("UPSTREAM_LOCAL", _local(_upstream)),
    "DOWNSTREAM_PEER_EMAIL_SAN": _certificate(_CLIENT, lambda one: ",".join(one.emails)),
    "DOWNSTREAM_LOCAL_EMAIL_SAN": _certificate(_OURS, lambda one: ",".join(one.emails)),
    "DOWNSTREAM_LOCAL_SUBJECT": _certificate(_OURS, lambda one: one.subject),
    "DOWNSTREAM_PEER_SERIAL": _certificate(_CLIENT, lambda one: one.serial),
    "DOWNSTREAM_PEER_FINGERPRINT_256": _certificate(_CLIENT, lambda one: one.sha256),
    "DOWNSTREAM_PEER_FINGERPRINT_1": _certificate(
        _CLIENT, lambda one: hashlib.sha1(one.der, usedforsecurity=False).hexdigest() if one.der else ""
    ),
    "UPSTREAM_SERVER_NAME": _session(_upstream, lambda one: one.server_name),
}
"""Operator -> what makes its reader of its argument."""
