"""`ssl` contexts made of the configuration, and what is asked of a peer's certificate beyond its chain.

As Envoy does: who vouches for a certificate is checked where the configuration names somebody, names in it
only where the configuration says which; a host's address or SNI alone is compared with nothing.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterable

from pywasmproxy.config.model_match import StringRule
from pywasmproxy.config.model_tls import (
    DownstreamTls,
    NameKind,
    NameMatch,
    PeerCheck,
    TlsOptions,
    TlsVersion,
    UpstreamTls,
)
from pywasmproxy.sansio.matching import text_test
from pywasmproxy.tls.certificate import Certificate, parse

_VERSIONS = {
    TlsVersion.TLS_1_0: ssl.TLSVersion.TLSv1,
    TlsVersion.TLS_1_1: ssl.TLSVersion.TLSv1_1,
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}
_BY_NAME = {version.value: number for version, number in _VERSIONS.items()}


class CheckedContext(ssl.SSLContext):
    """A context that knows what else must be true when a handshake is over."""

    check: PeerCheck | None = None
    needs_certificate = False
    """Of clients: the session may have begun with a context that does not insist on one."""
    low: ssl.TLSVersion = ssl.TLSVersion.MINIMUM_SUPPORTED
    high: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    checks_sni = False


class CheckedSession(ssl.SSLObject):
    """A TLS session that is over before it has begun when the peer is not whom we want."""

    requested_server_name: str | None = None
    """The name that the client asked for."""

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if not isinstance(context, CheckedContext):
            return
        der = self.getpeercert(binary_form=True)
        why = None
        if der is None and context.needs_certificate:
            why = "peer did not return a certificate"
        elif context.check is not None:
            sni = self.server_hostname if context.checks_sni else None
            try:
                why = objection(context.check, parse(der) if der is not None else None, sni)
            except ValueError as error:
                why = str(error)
        version = _BY_NAME.get(self.version() or "")
        if version is not None and not context.low <= version <= context.high:
            why = f"unsupported protocol {self.version()}"
        if why is not None:
            raise ssl.SSLCertVerificationError(f"verify cert failed: {why}")


def server_context(tls: DownstreamTls) -> CheckedContext:
    """For connections of clients. ValueError for what OpenSSL refuses."""
    context = CheckedContext(ssl.PROTOCOL_TLS_SERVER)
    context.needs_certificate = tls.require_client_certificate
    check = tls.options.check
    _prepare(context, tls.options, ssl.TLSVersion.TLSv1_3)
    if check is not None and check.has_roots:
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    elif tls.require_client_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: UpstreamTls, alpn: Iterable[str] | None = None) -> CheckedContext:
    """For connections to upstream hosts; `alpn` in place of the configured protocols. ValueError."""
    context = CheckedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.checks_sni = tls.check_sni
    context.check_hostname = False  # Envoy compares only what it is told to
    context.verify_mode = ssl.CERT_NONE
    check = tls.options.check
    _prepare(context, tls.options, ssl.TLSVersion.TLSv1_2)
    if check is not None and check.has_roots:
        context.verify_mode = ssl.CERT_REQUIRED
    if alpn is not None:
        context.set_alpn_protocols(list(alpn))
    return context


def _prepare(context: CheckedContext, options: TlsOptions, maximum: ssl.TLSVersion) -> None:
    context.sslobject_class = CheckedSession
    context.check = options.check
    low = _VERSIONS.get(options.minimum, ssl.TLSVersion.TLSv1_2)
    high = _VERSIONS.get(options.maximum, max(maximum, low))
    context.low, context.high = low, high
    try:
        context.minimum_version, context.maximum_version = low, high
        if options.ciphers:
            context.set_ciphers(":".join(options.ciphers))
        for one in options.certificates:
            with _Files(one.chain, one.key) as (chain, key):
                context.load_cert_chain(chain, key, one.password or _no_password)
        if options.check is not None:
            _trust(context, options.check)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(str(getattr(error, "reason", None) or error.args[-1])) from None
    if options.alpn:
        context.set_alpn_protocols(list(options.alpn))


def _no_password() -> bytes:
    """Instead of asking whoever sits at the terminal."""
    return b""


def _trust(context: ssl.SSLContext, check: PeerCheck) -> None:
    if check.trusted_ca:
        if not check.trusted_ca.isascii():
            raise ValueError("the trusted CA is no PEM text")
        context.load_verify_locations(cadata=check.trusted_ca.decode())
    if check.system_roots:
        context.load_default_certs()
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN  # whoever is named is trusted
    if check.crl:
        with _Files(check.crl) as (crl,):
            context.load_verify_locations(cafile=crl)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


class _Files:
    """Contents as files that only we can read, for as long as OpenSSL needs them."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = contents
        self._names: list[str] = []

    def __enter__(self) -> list[str]:
        try:
            for content in self._contents:
                handle, name = tempfile.mkstemp(suffix=".pem")
                self._names.append(name)
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
        except BaseException:
            self.__exit__()
            raise
        return self._names

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            os.unlink(name)


# --- the peer's certificate -----------------------------------------------------------------------------


def objection(check: PeerCheck, certificate: Certificate | None, sni: str | None = None) -> str | None:
    """Why a certificate is not the one that is wanted; None when it is. `sni`: a name it must have."""
    wants_name = bool(check.names) or sni is not None
    if certificate is None:
        return "no certificate" if wants_name or check.digests or check.key_digests else None
    if wants_name:
        found = (*certificate.dns_names, *certificate.uris, *certificate.emails, *certificate.addresses)
        matches = any(_has_name(certificate, one) for one in check.names)
        matches = matches or (sni is not None and any(covers(name, sni) for name in certificate.dns_names))
        if not matches:
            return f"SAN matcher, certificate SANs are [{', '.join(found)}]"
    if check.digests or check.key_digests:
        # One of either kind is enough.
        if certificate.sha256 in check.digests or certificate.key_sha256 in check.key_digests:
            return None
        return "certificate hash"
    return None


def _has_name(certificate: Certificate, wanted: NameMatch) -> bool:
    kinds = {
        NameKind.DNS: certificate.dns_names,
        NameKind.URI: certificate.uris,
        NameKind.EMAIL: certificate.emails,
        NameKind.IP_ADDRESS: certificate.addresses,
    }
    test, text = text_test(wanted.text), wanted.text
    for kind, names in kinds.items():
        if wanted.kind not in (None, kind):
            continue
        for name in names:
            if kind is NameKind.DNS and text.rule is StringRule.EXACT:
                if covers(name, text.value):
                    return True
            elif kind is NameKind.IP_ADDRESS and text.rule is StringRule.EXACT:
                if name == _address(text.value):
                    return True
            elif test(name.encode()):
                return True
    return False


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def covers(pattern: str, name: str) -> bool:
    """Whether a DNS name in a certificate, perhaps with `*` for one label, is that name (RFC 6125)."""
    pattern, name = pattern.lower(), name.lower()
    if not pattern.startswith("*."):
        return pattern == name
    first, dot, rest = name.partition(".")
    return bool(first and dot) and rest == pattern[2:]
