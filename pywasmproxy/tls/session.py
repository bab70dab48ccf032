"""What filters can read about a TLS session, once its handshake is over."""

from __future__ import annotations

import ssl
from functools import lru_cache

from abi.proxy_wasm.stream_info import CertificateFacts, TlsFacts
from pywasmproxy.tls.certificate import Certificate, parse, parse_pem


@lru_cache(maxsize=64)
def own_facts(pem: bytes) -> CertificateFacts | None:
    """What the first certificate of a PEM text says; None for what cannot be read."""
    try:
        return _facts(parse_pem(pem))
    except ValueError:
        return None


def _facts(found: Certificate) -> CertificateFacts:
    return CertificateFacts(
        found.subject,
        found.dns_names,
        found.uris,
        found.sha256,
        found.emails,
        found.addresses,
        found.issuer,
        found.serial,
        found.not_before,
        found.not_after,
        found.der,
    )


def facts(session: ssl.SSLObject, own: bytes | None) -> TlsFacts:
    """The facts of a session; `own` is our certificate (PEM), if we have shown one."""
    der = session.getpeercert(binary_form=True)
    peer: CertificateFacts | None = None
    if der is not None:
        try:
            peer = _facts(parse(der))
        except ValueError:
            peer = CertificateFacts("")
    version, cipher = session.version() or "", session.cipher()
    kept = session.session if version != "TLSv1.3" else None  # where it has no meaning any more
    return TlsFacts(
        version,
        None if own is None else own_facts(own),
        peer,
        cipher[0] if cipher is not None else "",
        kept.id.hex() if kept is not None else "",
        session.server_hostname or "",
    )
