"""TLS contexts of both sides, in `transport_socket` or the older `tls_context`.

Field tables after envoy.extensions.transport_sockets.tls.v3 (tls.proto, common.proto, secret.proto).
"""

from __future__ import annotations

import re
from typing import Any

from pywasmproxy.config.common import TRANSPORT_SOCKET, data_source
from pywasmproxy.config.extension import resolve
from pywasmproxy.config.matchers import string_match
from pywasmproxy.config.model_tls import (
    DownstreamTls,
    NameKind,
    NameMatch,
    PeerCheck,
    TlsCertificate,
    TlsOptions,
    TlsVersion,
    UpstreamTls,
)
from pywasmproxy.config.schema import Cursor, Message, anything, boolean, enum, later, repeated, text
from pywasmproxy.config.secrets import secret
from pywasmproxy.tls.context import client_context, server_context

_NAME = "envoy.extensions.transport_sockets.tls.v3"
_NOT_CHECKED = "not supported: this is NOT CHECKED"

TLS_CERTIFICATE = Message(
    f"{_NAME}.TlsCertificate",
    {
        "certificate_chain": later,
        "private_key": later,
        "password": later,
        "pkcs12": later,
        "watched_directory": anything,  # all files are watched
    },
    ignored="private_key_provider ocsp_staple signed_certificate_timestamp",
)

_VERSIONS = {
    "TLS_AUTO": TlsVersion.AUTO,
    "TLSV1_0": TlsVersion.TLS_1_0,
    "TLSV1_1": TlsVersion.TLS_1_1,
    "TLSV1_2": TlsVersion.TLS_1_2,
    "TLSV1_3": TlsVersion.TLS_1_3,
}


def _version(cursor: Cursor) -> TlsVersion:
    return _VERSIONS[enum("version of TLS", " ".join(_VERSIONS))(cursor)]


TLS_PARAMETERS = Message(
    f"{_NAME}.TlsParameters",
    {
        "tls_minimum_protocol_version": _version,
        "tls_maximum_protocol_version": _version,
        "cipher_suites": repeated(text),
    },
    ignored="ecdh_curves signature_algorithms compliance_policies",
)


def _name_match(cursor: Cursor) -> NameMatch:
    values = NAME_MATCHER.read(cursor)
    if values.get("san_type") == "OTHER_NAME":
        cursor.fail("alternative names of kind OTHER_NAME are not supported")
    if "san_type" not in values:
        cursor.fail("SubjectAltNameMatcher needs 'san_type'")
    return NameMatch(values["matcher"], NameKind(values["san_type"]))


NAME_MATCHER = Message(
    f"{_NAME}.SubjectAltNameMatcher",
    {
        "san_type": enum("kind of name", "SAN_TYPE_UNSPECIFIED EMAIL DNS URI IP_ADDRESS OTHER_NAME"),
        "matcher": string_match,
        "oid": anything,
    },
    required="matcher",
)


def _digest(cursor: Cursor) -> str:
    """A SHA-256 in hexadecimal digits, with or without colons."""
    written = text(cursor).replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", written):
        cursor.fail("expected a SHA-256 of 64 hexadecimal digits")
    return written


def _key_digest(cursor: Cursor) -> str:
    """A SHA-256 in base64."""
    import base64
    import binascii

    try:
        raw = base64.b64decode(text(cursor), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        cursor.fail("expected a SHA-256 in base64")
    return raw.hex()


VALIDATION = Message(
    f"{_NAME}.CertificateValidationContext",
    {
        "trusted_ca": later,
        "system_root_certs": anything,
        "verify_certificate_hash": repeated(_digest),
        "verify_certificate_spki": repeated(_key_digest),
        "match_typed_subject_alt_names": repeated(_name_match),
        "match_subject_alt_names": repeated(string_match),
        "verify_subject_alt_name": repeated(text),
        "crl": later,
        "watched_directory": anything,
    },
    ignored="ca_certificate_provider_instance only_verify_leaf_cert_crl max_verify_depth",
    notes={
        "require_signed_certificate_timestamp": _NOT_CHECKED,
        "custom_validator_config": _NOT_CHECKED,
        "allow_expired_certificate": "not supported: a certificate that has expired is refused",
        "trust_chain_verification": "not supported: certificates that nobody trusted vouches for are refused",
    },
    harmless={
        "trust_chain_verification": ("VERIFY_TRUST_CHAIN",),
        "allow_expired_certificate": (False,),
    },
    legacy="verify_subject_alt_name",
)


def _check(cursor: Cursor, *more: Cursor) -> PeerCheck:
    """A `CertificateValidationContext`; others are merged into it as protobuf does: lists grow, values go."""
    values = VALIDATION.read(cursor)
    for one in more:
        for name, value in VALIDATION.read(one).items():
            values[name] = values[name] + value if name in values and isinstance(value, tuple) else value
    names = list(values.get("match_typed_subject_alt_names", ()))
    names += [NameMatch(one) for one in values.get("match_subject_alt_names", ())]
    names += [NameMatch(_exact(one)) for one in values.get("verify_subject_alt_name", ())]
    found = PeerCheck(
        trusted_ca=data_source(values["trusted_ca"])[0] if "trusted_ca" in values else b"",
        system_roots="system_root_certs" in values,
        names=tuple(names),
        digests=values.get("verify_certificate_hash", ()),
        key_digests=values.get("verify_certificate_spki", ()),
        crl=data_source(values["crl"])[0] if "crl" in values else b"",
    )
    if found.names and not found.has_roots:
        cursor.fail("names are matched only in certificates that are verified: 'trusted_ca' is needed")
    return found


def _exact(value: str) -> Any:
    from pywasmproxy.config.model_match import StringMatch, StringRule

    return StringMatch(StringRule.EXACT, value)


COMBINED = Message(
    f"{_NAME}.CommonTlsContext.CombinedCertificateValidationContext",
    {"default_validation_context": later, "validation_context_sds_secret_config": later},
    ignored="validation_context_certificate_provider validation_context_certificate_provider_instance",
)

COMMON = Message(
    f"{_NAME}.CommonTlsContext",
    {
        "tls_params": TLS_PARAMETERS.read,
        "tls_certificates": repeated(later),
        "validation_context": _check,
        "tls_certificate_sds_secret_configs": repeated(later),
        "validation_context_sds_secret_config": later,
        "combined_validation_context": COMBINED.read,
        "alpn_protocols": repeated(text),
    },
    ignored="tls_certificate_provider_instance tls_certificate_certificate_provider "
    "tls_certificate_certificate_provider_instance custom_handshaker key_log custom_tls_certificate_selector "
    "validation_context_certificate_provider validation_context_certificate_provider_instance",
    one_of=("validation_context combined_validation_context validation_context_sds_secret_config",),
)

DOWNSTREAM = Message(
    f"{_NAME}.DownstreamTlsContext",
    {"common_tls_context": COMMON.read, "require_client_certificate": boolean, "require_sni": anything},
    ignored="session_ticket_keys session_ticket_keys_sds_secret_config disable_stateless_session_resumption "
    "disable_stateful_session_resumption session_timeout ocsp_staple_policy full_scan_certs_on_sni_mismatch "
    "prefer_client_ciphers",
    harmless={"ocsp_staple_policy": ("LENIENT_STAPLING",)},
)

UPSTREAM = Message(
    f"{_NAME}.UpstreamTlsContext",
    {
        "common_tls_context": COMMON.read,
        "sni": text,
        "auto_host_sni": boolean,
        "auto_sni_san_validation": boolean,
    },
    ignored="allow_renegotiation max_session_keys enforce_rsa_key_usage",
)

_SOCKETS = {"envoy.transport_sockets.tls": "tls", "tls": "tls"}
_RAW = (
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.transport_sockets.raw_buffer",
    "raw_buffer",
)
_TLS = {side.name: side for side in (DOWNSTREAM, UPSTREAM)} | {
    f"envoy.api.v2.auth.{side.title}": side for side in (DOWNSTREAM, UPSTREAM)
}
UNKNOWN_SOCKET = "not supported: connections are PLAIN TEXT"


def _context(cursor: Cursor, side: Message) -> Cursor | None:
    """The place of the TLS context in a `TransportSocket`; None for raw sockets."""
    values = TRANSPORT_SOCKET.read(cursor)
    name, fields = resolve(values.get("typed_config"), cursor.get("config"))
    if name is None:
        name = side.name if values.get("name") in _SOCKETS else values.get("name")
    if name in _RAW:
        return None
    if name not in _TLS:
        cursor.warn(f"transport socket {name!r} is {UNKNOWN_SOCKET}")
        return None
    if _TLS[name] is not side:
        cursor.fail(f"a {_TLS[name].title} is for the other side: {side.title} is needed here")
    if fields is None:
        cursor.fail(f"{side.title} needs 'typed_config'")
    return fields


def downstream_socket(cursor: Cursor) -> DownstreamTls | None:
    """TLS with clients, of a `TransportSocket`."""
    found = _context(cursor, DOWNSTREAM)
    return None if found is None else downstream_tls(found)


def downstream_tls(cursor: Cursor) -> DownstreamTls:
    """A `DownstreamTlsContext`."""
    values = DOWNSTREAM.read(cursor)
    found = DownstreamTls(
        _options(values.get("common_tls_context", {}), cursor),
        values.get("require_client_certificate", False),
    )
    if not found.options.certificates:
        cursor.fail("no certificate: 'common_tls_context.tls_certificates' is needed, or secrets from a file")
    if found.require_client_certificate and (
        found.options.check is None or not found.options.check.has_roots
    ):
        cursor.warn("require_client_certificate without 'trusted_ca': no client's certificate is accepted")
    try:
        server_context(found)
    except ValueError as error:
        cursor.fail(str(error))
    return found


def upstream_socket(cursor: Cursor) -> UpstreamTls | None:
    """TLS with upstream hosts, of a `TransportSocket`."""
    found = _context(cursor, UPSTREAM)
    return None if found is None else upstream_tls(found)


def upstream_tls(cursor: Cursor) -> UpstreamTls:
    """An `UpstreamTlsContext`."""
    values = UPSTREAM.read(cursor)
    found = UpstreamTls(
        _options(values.get("common_tls_context", {}), cursor),
        values.get("sni", ""),
        values.get("auto_host_sni", False),
        values.get("auto_sni_san_validation", False),
    )
    check = found.options.check
    if check is None or not (check.has_roots or check.digests or check.key_digests):
        cursor.warn("without 'trusted_ca' in a validation context the upstream's certificate is NOT VERIFIED")
    try:
        client_context(found)
    except ValueError as error:
        cursor.fail(str(error))
    return found


def _options(common: dict[str, Any], cursor: Cursor) -> TlsOptions:
    parameters = common.get("tls_params", {})
    return TlsOptions(
        certificates=tuple(_certificate(one) for one in _certificates(common)),
        check=_peer_check(common),
        minimum=parameters.get("tls_minimum_protocol_version", TlsVersion.AUTO),
        maximum=parameters.get("tls_maximum_protocol_version", TlsVersion.AUTO),
        ciphers=tuple(_ciphers(parameters.get("cipher_suites", ()))),
        alpn=common.get("alpn_protocols", ()),
    )


def _certificates(common: dict[str, Any]) -> list[Cursor]:
    """Where the certificates are: those on the spot come first, and alone."""
    own: tuple[Cursor, ...] = common.get("tls_certificates", ())
    apart: tuple[Cursor, ...] = common.get("tls_certificate_sds_secret_configs", ())
    if own and apart:
        apart[0].warn("there are 'tls_certificates': this secret is not used")
    if own:
        return list(own)
    found = [secret(one, "tls_certificate") for one in apart]
    return [_usable(place) for place in found if place is not None]


def _usable(cursor: Cursor) -> Cursor:
    """The place of a certificate; an error there if certificate and key do not belong together."""
    try:
        server_context(DownstreamTls(TlsOptions((_certificate(cursor),))))
    except ValueError as error:
        cursor.fail(str(error))
    return cursor


def _peer_check(common: dict[str, Any]) -> PeerCheck | None:
    """What is asked of the peer's certificate, wherever that is written."""
    if "validation_context" in common:
        found: PeerCheck = common["validation_context"]
        return found
    combined: dict[str, Any] = common.get("combined_validation_context", {})
    own: Cursor | None = combined.get("default_validation_context")
    apart: Cursor | None = combined.get(_SECRET) or common.get(_SECRET)
    places = [own, None if apart is None else secret(apart, "validation_context")]
    written = [place for place in places if place is not None]
    return _check(*written) if written else None


_SECRET = "validation_context_sds_secret_config"


def _ciphers(written: tuple[str, ...]) -> list[str]:
    """Names in order. Groups of equals (`[A|B]`) and lists in one entry are taken apart."""
    return [name for entry in written for name in re.split(r"[\[\]|:,\s]+", entry) if name]


def _certificate(cursor: Cursor) -> TlsCertificate:
    values = TLS_CERTIFICATE.read(cursor)
    if "pkcs12" in values:
        cursor.fail("pkcs12 is not supported: certificate_chain and private_key in PEM form are needed")
    for name in ("certificate_chain", "private_key"):
        if name not in values:
            cursor.fail(f"TlsCertificate needs {name!r}")
    return TlsCertificate(
        data_source(values["certificate_chain"])[0],
        data_source(values["private_key"])[0],
        data_source(values["password"])[0].rstrip(b"\r\n") if "password" in values else b"",
    )
