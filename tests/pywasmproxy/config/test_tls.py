"""TLS contexts of both sides: what they say, what is refused, what is warned about."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmproxy.config import ConfigError, load
from pywasmproxy.config.model import Bootstrap
from pywasmproxy.config.model_match import StringMatch, StringRule
from pywasmproxy.config.model_tls import NameKind, NameMatch, TlsVersion, UpstreamTls
from tests.support.bootstrap import bootstrap, read, refused
from tests.support.certificates import Authority, Pair

TYPE = "'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("tls")).issue("server")


def upstream(common: str = "", more: str = "") -> str:
    return (
        f"transport_socket: {{name: tls, typed_config: {{{TYPE}.UpstreamTlsContext, "
        f"common_tls_context: {{{common}}}{more}}}}}"
    )


def downstream(*sockets: str) -> Bootstrap:
    """A bootstrap with one filter chain for each of these parts."""
    text = bootstrap()
    start, end = text.index("    - filters:"), text.index("  clusters:")
    chain = text[start:end]
    chains = [chain.replace("    - filters:", f"    - {one}\n      filters:", 1) for one in sockets]
    return load(text[:start] + "".join(chains) + text[end:], "test.yaml")


def certificate(pair: Pair) -> str:
    files = f"certificate_chain: {{filename: {pair.certificate}}}, private_key: {{filename: {pair.key}}}"
    return f"tls_certificates: [{{{files}}}]"


def server(pair: Pair, common: str = "", more: str = "") -> str:
    return (
        f"transport_socket: {{name: tls, typed_config: {{{TYPE}.DownstreamTlsContext, "
        f"common_tls_context: {{{certificate(pair)}{common}}}{more}}}}}"
    )


@pytest.mark.openssl
def test_an_upstream_context(pair: Pair) -> None:
    digest = "ab" * 32
    found = read(
        cluster=upstream(
            f"validation_context: {{trusted_ca: {{filename: {pair.certificate}}}, "
            f"verify_certificate_hash: ['{digest.upper()}'], "
            "match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: 'spiffe:'}}], "
            "match_subject_alt_names: [{exact: a.test}]}, alpn_protocols: [h2, http/1.1], "
            "tls_params: {tls_maximum_protocol_version: TLSv1_3, cipher_suites: "
            "['[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-ECDSA-AES128-GCM-SHA256]']}",
            ", sni: a.test, auto_host_sni: true",
        )
    )
    assert found.warnings == ()
    tls = found.clusters[0].tls
    assert tls is not None
    assert tls.options.check is not None
    assert (tls.sni, tls.auto_host_sni) == ("a.test", True)
    assert tls.options.maximum is TlsVersion.TLS_1_3
    assert tls.options.ciphers == ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")
    assert tls.options.alpn == ("h2", "http/1.1")
    assert tls.options.check.digests == (digest,)
    assert tls.options.check.names == (
        NameMatch(StringMatch(StringRule.PREFIX, "spiffe:"), NameKind.URI),
        NameMatch(StringMatch(StringRule.EXACT, "a.test")),
    )
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("fields", ["tls_context: {sni: a.test}", upstream("", ", sni: a.test")])
def test_an_upstream_that_is_not_verified_warns(fields: str) -> None:
    found = read(cluster=fields)
    assert found.clusters[0].tls == UpstreamTls(sni="a.test")
    [warning] = found.warnings
    assert "NOT VERIFIED" in warning.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("transport_socket: {name: tls}", "UpstreamTlsContext needs 'typed_config'"),
        (
            upstream().replace("Upstream", "Downstream"),
            "a DownstreamTlsContext is for the other side: UpstreamTlsContext is needed here",
        ),
        (upstream("tls_params: {cipher_suites: [NOPE]}"), "No cipher can be selected."),
        (
            upstream("validation_context: {match_subject_alt_names: [{exact: a}]}"),
            "names are matched only in certificates that are verified: 'trusted_ca' is needed",
        ),
        (
            upstream("validation_context: {verify_certificate_hash: [ab]}"),
            "expected a SHA-256 of 64 hexadecimal digits",
        ),
        (upstream("tls_certificates: [{}]"), "TlsCertificate needs 'certificate_chain'"),
        (upstream("validation_context: {trusted_ca: {filename: /nope}}"), "Invalid path: /nope"),
        (
            upstream("validation_context: {trusted_ca: {inline_bytes: /w==}}"),
            "the trusted CA is no PEM text",
        ),
    ],
)
def test_refused(fields: str, message: str) -> None:
    assert refused(cluster=fields).message == message


@pytest.mark.openssl
def test_filter_chains_by_name(pair: Pair) -> None:
    found = downstream(
        f"filter_chain_match: {{server_names: [A.test, '*.b.test']}}\n      {server(pair)}", server(pair)
    )
    assert found.warnings == ()
    [listener] = found.listeners
    assert [chain.server_names for chain in listener.filter_chains] == [("a.test", "*.b.test"), ()]
    assert listener.kind == (False, True)


@pytest.mark.openssl
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("{server_names: [a]}", "{server_names: [b, A]}", "another filter chain has the same match 'a'"),
        ("{server_names: ['a.*']}", "{}", "'*' stands only for what is before the first dot"),
    ],
)
def test_matches_that_are_refused(pair: Pair, first: str, second: str, message: str) -> None:
    parts = (f"filter_chain_match: {one}\n      {server(pair)}" for one in (first, second))
    with pytest.raises(ConfigError) as caught:
        downstream(*parts)
    assert message in caught.value.message


@pytest.mark.openssl
def test_certificates_that_are_refused(pair: Pair, tmp_path: Path) -> None:
    other = Authority(tmp_path).issue("other")
    with pytest.raises(ConfigError) as caught:
        downstream(server(Pair(pair.certificate, other.key)))
    assert caught.value.message == "KEY_VALUES_MISMATCH"
    assert caught.value.path.endswith(".transport_socket.typed_config")
    with pytest.raises(ConfigError, match="no certificate:"):
        downstream(server(pair).replace(certificate(pair), ""))
    [warning] = downstream(server(pair, more=", require_client_certificate: true")).warnings
    assert "no client's certificate is accepted" in warning.message


# --- secrets that are written apart -----------------------------------------------------------------------


def with_secrets(text: str, *secrets: str) -> str:
    return text.rstrip() + "\n  secrets:\n" + "".join(f"  - {{{one}}}\n" for one in secrets)


@pytest.mark.openssl
def test_secrets_by_name(pair: Pair) -> None:
    """Those of the bootstrap itself; a combined context is merged as protobuf merges messages."""
    names = "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: %s}}]"
    combined = (
        f"combined_validation_context: {{default_validation_context: {{{names % 'a.test'}, "
        "verify_certificate_hash: [], trusted_ca: {inline_string: no}}, "
        "validation_context_sds_secret_config: {name: them}}"
    )
    common = f"tls_certificate_sds_secret_configs: [{{name: me}}], {combined}"
    text = with_secrets(
        bootstrap(cluster=upstream(common)),
        f"name: me, tls_certificate: {certificate(pair).partition('[')[2][:-1]}",
        f"name: them, validation_context: {{{names % 'b.test'}, "
        f"trusted_ca: {{filename: {pair.certificate}}}}}",
    )
    found = load(text, "test.yaml")
    assert found.warnings == ()
    tls = found.clusters[0].tls
    assert tls is not None
    assert tls.options.check is not None
    assert [one.chain for one in tls.options.certificates] == [pair.certificate.read_bytes()]
    assert [one.text.value for one in tls.options.check.names] == ["a.test", "b.test"]
    assert tls.options.check.trusted_ca == pair.certificate.read_bytes()
    assert "PRIVATE" not in repr(found)
    with pytest.raises(ConfigError, match=r"unknown secret 'them' \(did you mean 'then'\?\)"):
        load(text.replace("name: them, val", "name: then, val"), "test.yaml")
    with pytest.raises(ConfigError, match="secret name 'me' is taken already"):
        load(with_secrets(bootstrap(), "name: me", "name: me"), "test.yaml")
    with pytest.raises(
        ConfigError, match="secret 'me' has no 'validation_context', which is wanted of it at"
    ):
        load(text.replace("{name: them}", "{name: me}"), "test.yaml")


@pytest.mark.openssl
def test_secrets_that_are_not_used_or_cannot_be_had(pair: Pair) -> None:
    secret = "tls_certificate_sds_secret_configs: [{name: a, sds_config: {ads: {}}}]"
    [warning] = downstream(server(pair, f", {secret}")).warnings
    assert "this secret is not used" in warning.message
    with pytest.raises(ConfigError, match=r"no certificate: .* or secrets from a file"):
        downstream(server(pair).replace(certificate(pair), secret))
    found = read(cluster=upstream("validation_context_sds_secret_config: {name: a, sds_config: {ads: {}}}"))
    assert [warning.path.rpartition(".")[2] for warning in found.warnings] == ["ads", "typed_config"]
    assert "NOT VERIFIED" in found.warnings[1].message
