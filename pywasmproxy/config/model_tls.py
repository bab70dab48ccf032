"""TLS in the typed configuration: identities, what is checked of the peer, versions and ciphers.

After envoy.extensions.transport_sockets.tls.v3. Certificates and keys are PEM texts that have been read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from pywasmproxy.config.model_match import StringMatch


class TlsVersion(Enum):
    """Versions of the protocol, as filters read them; AUTO is what Envoy does unless it is told otherwise."""

    AUTO = "AUTO"
    TLS_1_0 = "TLSv1"
    TLS_1_1 = "TLSv1.1"
    TLS_1_2 = "TLSv1.2"
    TLS_1_3 = "TLSv1.3"


class NameKind(Enum):
    """Kinds of alternative names of a certificate (RFC 5280, section 4.2.1.6)."""

    EMAIL = "EMAIL"
    DNS = "DNS"
    URI = "URI"
    IP_ADDRESS = "IP_ADDRESS"


@dataclass(frozen=True, slots=True)
class NameMatch:
    """A condition on the alternative names of a certificate; `kind` None: of whatever kind."""

    text: StringMatch
    kind: NameKind | None = None


@dataclass(frozen=True, slots=True)
class TlsCertificate:
    """What we show: a certificate with those that vouch for it, and its private key."""

    chain: bytes
    key: bytes = field(repr=False)
    password: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PeerCheck:
    """What must be true of the peer's certificate. One name must match, if there are any; one digest, too."""

    trusted_ca: bytes = b""
    system_roots: bool = False
    names: tuple[NameMatch, ...] = ()
    digests: tuple[str, ...] = ()
    """SHA-256 of the certificate, in lower-case hexadecimal digits."""
    key_digests: tuple[str, ...] = ()
    """SHA-256 of its public key (SubjectPublicKeyInfo), likewise."""
    crl: bytes = b""

    @property
    def has_roots(self) -> bool:
        """Whether there is anybody who may vouch for the peer."""
        return bool(self.trusted_ca) or self.system_roots


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What both sides have in common. `check` None: the peer's certificate is not looked at."""

    certificates: tuple[TlsCertificate, ...] = ()
    check: PeerCheck | None = None
    minimum: TlsVersion = TlsVersion.AUTO
    maximum: TlsVersion = TlsVersion.AUTO
    ciphers: tuple[str, ...] = ()
    """Up to TLS 1.2, in OpenSSL's names; none: the library's own choice."""
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """TLS with clients."""

    options: TlsOptions
    require_client_certificate: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS with upstream hosts. `sni` is the name they are asked for; "" leaves that out."""

    options: TlsOptions = TlsOptions()
    sni: str = ""
    auto_host_sni: bool = False
    """The name is the host's `hostname`, where it has one."""
    check_sni: bool = False
    """`auto_sni_san_validation`: one of the certificate's DNS names must be the one asked for."""
