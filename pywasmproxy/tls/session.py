"""What filters can read about a TLS session, once its handshake is over."""

from __future__ import annotations

import ssl
from functools import lru_cache

from abi.proxy_wasm.stream_info import CertificateFacts, TlsFacts
from pywasmproxy.tls.certificate import parse, parse_pem


@lru_cache(maxsize=64)
def own_facts(pem: bytes) -> CertificateFacts | None:
    """What the first certificate of a PEM text says; None for what cannot be read."""
    try:
        found = parse_pem(pem)
    except ValueError:
        return None
    return CertificateFacts(found.subject, found.dns_names, found.uris, found.sha256)


def facts(session: ssl.SSLObject, own: bytes | None) -> TlsFacts:
    """The facts of a session; `own` is our certificate (PEM), if we have shown one."""
    der = session.getpeercert(binary_form=True)
    peer: CertificateFacts | None = None
    if der is not None:
        try:
            found = parse(der)
            peer = CertificateFacts(found.subject, found.dns_names, found.uris, found.sha256)
        except ValueError:
            peer = CertificateFacts("")
    return TlsFacts(session.version() or "", None if own is None else own_facts(own), peer)
