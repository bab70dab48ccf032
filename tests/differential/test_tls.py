"""TLS side by side: who gets in, what upstreams are told of clients, which hosts are trusted."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.beside import TYPES, Answer, Host, ask, beside, bootstrap, cluster, listener, manager
from tests.replay.proxy import free_port
from tests.support.certificates import Authority, Pair

pytestmark = [pytest.mark.envoy, pytest.mark.openssl]

TLS = f"{TYPES}.extensions.transport_sockets.tls.v3"
INSPECTOR = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": f"{TYPES}.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
}
DETAILS = {"subject": True, "cert": False, "chain": False, "dns": True, "uri": True}
GIVEN = 'By=spiffe://elsewhere;Hash=00;Subject="/CN=me"'


def files(pair: Pair) -> dict[str, Any]:
    names = {"certificate_chain": pair.certificate, "private_key": pair.key}
    return {"tls_certificates": [{key: {"filename": str(name)} for key, name in names.items()}]}


def socket(kind: str, common: dict[str, Any], **fields: Any) -> dict[str, Any]:
    config = {"@type": f"{TLS}.{kind}", "common_tls_context": common, **fields}
    return {"transport_socket": {"name": "tls", "typed_config": config}}


class Certificates:
    """Those of one test."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.others = Authority(folder), Authority(folder, "others")
        self.server = self.authority.issue("server", "DNS:a.test,URI:spiffe://a/server", subject="/CN=server")
        self.client = self.authority.issue(
            "client", "DNS:c.test,DNS:d.test,URI:spiffe://a/client", subject='/CN=me, too/O=A "B"'
        )
        self.stranger = self.others.issue("stranger", "DNS:a.test")
        self.roots = {"trusted_ca": {"filename": str(self.authority.certificate)}}

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.check_hostname = False
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    def of_host(self, pair: Pair) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority.certificate)
        context.load_cert_chain(pair.certificate, pair.key)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def to(name: str) -> list[dict[str, Any]]:
    return [{"match": {"prefix": "/"}, "route": {"cluster": name}}]


async def outcome(port: int, **options: Any) -> Answer | str:
    """An answer, or that there was none."""
    try:
        return await ask(port, **options)
    except (OSError, EOFError):
        return "no answer"


@contextlib.asynccontextmanager
async def host(name: str = "up", tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    async with Host(name, tls).running() as one:
        yield one


MODES = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")


async def test_what_is_told_of_clients(tmp_path: Path, certificates: Certificates) -> None:
    """Ours, a stranger, and one without a certificate; each says something of itself as well as nothing."""
    cases = {(mode, required): free_port() for mode in MODES for required in (True, False)}

    async with host() as up:

        def at(mode: str, required: bool, port: int) -> dict[str, Any]:
            common = files(certificates.server) | {"validation_context": certificates.roots}
            secure = socket("DownstreamTlsContext", common, require_client_certificate=required)
            rules = {"forward_client_cert_details": mode, "set_current_client_cert_details": DETAILS}
            return listener(port, {"filters": [manager(to("up"), **rules)], **secure})

        def configuration(port: int) -> dict[str, Any]:
            listeners = [at(mode, required, own) for (mode, required), own in cases.items()]
            return bootstrap([listener(port, manager(to("up"))), *listeners], [cluster("up", up.port)])

        async def talk(port: int) -> dict[Any, Any]:
            seen: dict[Any, Any] = {}
            for case, own in cases.items():
                for who in ("client", "stranger", ""):
                    pair = getattr(certificates, who) if who else None
                    for said in ("", GIVEN):
                        fields = {"x-forwarded-client-cert": said} if said else {}
                        context = certificates.context(pair)
                        found = await outcome(own, fields=fields, tls=context, name="a.test")
                        if isinstance(found, Answer):
                            told = found.told["headers"].get("x-forwarded-client-cert")
                            seen[*case, who, said] = found.status, told
                        else:
                            seen[*case, who, said] = found, None
            return seen

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy
    for (_, required, who, _), (status, _) in envoy.items():
        # A stranger stays out, whether somebody must be known or not.
        gets_in = who == "client" or (not who and not required)
        assert status == (200 if gets_in else "no answer")
    assert envoy["SANITIZE_SET", True, "client", GIVEN][1].startswith("By=spiffe://a/server;Hash=")


async def test_the_name_that_is_asked_for_chooses(tmp_path: Path, certificates: Certificates) -> None:
    """Exact names, a wildcard, one that nobody serves, and none."""
    other = certificates.authority.issue("other", "DNS:*.b.test", subject="/CN=other")

    def configuration(port: int) -> dict[str, Any]:
        def chain(pair: Pair, body: str, *names: str) -> dict[str, Any]:
            route = {
                "match": {"prefix": "/"},
                "direct_response": {"status": 200, "body": {"inline_string": body}},
            }
            return {
                "filters": [manager([route])],
                "filter_chain_match": {"server_names": list(names)},
                **socket("DownstreamTlsContext", files(pair)),
            }

        chains = chain(certificates.server, "first", "a.test"), chain(other, "second", "*.b.test")
        return bootstrap([listener(port, *chains, listener_filters=[INSPECTOR])], [])

    async def talk(port: int) -> list[Any]:
        seen = []
        for name in ("a.test", "x.b.test", "X.B.TEST", "y.x.b.test", "b.test", "c.test"):
            found = await outcome(port, tls=certificates.context(), name=name)
            seen.append((name, found if isinstance(found, str) else found.body))
        return seen

    envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy
    assert dict(envoy)["a.test"] == b"first"
    assert dict(envoy)["c.test"] == "no answer"


def upstream_checks(certificates: Certificates) -> dict[str, dict[str, Any]]:
    """Ways to look at a host, by name."""

    def names(*wanted: dict[str, Any]) -> dict[str, Any]:
        return {**certificates.roots, "match_typed_subject_alt_names": list(wanted)}

    return {
        "nobody": {},
        "roots": certificates.roots,
        "dns": names({"san_type": "DNS", "matcher": {"exact": "a.test"}}),
        "wrong": names({"san_type": "DNS", "matcher": {"exact": "b.test"}}),
        "uri": names({"san_type": "URI", "matcher": {"prefix": "spiffe://a/"}}),
    }


async def test_which_hosts_are_trusted(tmp_path: Path, certificates: Certificates) -> None:
    """A good host and a stranger, each looked at in several ways; both see our own certificate."""
    async with (
        host("good", certificates.of_host(certificates.server)) as good,
        host("stranger", certificates.of_host(certificates.stranger)) as stranger,
    ):
        checks = upstream_checks(certificates)

        def configuration(port: int) -> dict[str, Any]:
            routes, clusters = [], []
            for one in (good, stranger):
                for name, check in checks.items():
                    own = f"{one.name}-{name}"
                    common = files(certificates.client) | ({"validation_context": check} if check else {})
                    clusters.append(
                        cluster(own, one.port, **socket("UpstreamTlsContext", common, sni="a.test"))
                    )
                    routes.append({"match": {"path": f"/{own}"}, "route": {"cluster": own}})
            return bootstrap([listener(port, manager(routes))], clusters)

        async def talk(port: int) -> dict[str, Any]:
            seen = {}
            for one in (good, stranger):
                for name in checks:
                    found = await ask(port, f"/{one.name}-{name}")
                    seen[f"{one.name} {name}"] = found.status, found.told.get("peer")
            return seen

        envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy
    statuses = {name: status for name, (status, _) in envoy.items()}
    assert statuses == {
        **{f"good {name}": 200 for name in ("nobody", "roots", "dns", "uri")},
        "good wrong": 503,
        "stranger nobody": 200,
        **{f"stranger {name}": 503 for name in ("roots", "dns", "wrong", "uri")},
    }
    assert ["URI", "spiffe://a/client"] in envoy["good roots"][1]


async def test_versions(tmp_path: Path, certificates: Certificates) -> None:
    """Listeners of some versions, clients of one: who gets in."""
    cases = {
        (low, high): free_port()
        for low, high in (("TLSv1_2", "TLSv1_2"), ("TLSv1_3", "TLSv1_3"), ("TLSv1_2", "TLSv1_3"))
    }
    http = manager([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}])

    def configuration(port: int) -> dict[str, Any]:
        listeners = [listener(port, http)]
        for (low, high), own in cases.items():
            parameters = {"tls_minimum_protocol_version": low, "tls_maximum_protocol_version": high}
            common = files(certificates.server) | {"tls_params": parameters}
            listeners.append(listener(own, {"filters": [http], **socket("DownstreamTlsContext", common)}))
        return bootstrap(listeners, [])

    async def talk(port: int) -> dict[Any, list[bool]]:
        seen: dict[Any, list[bool]] = {}
        for case, own in cases.items():
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = certificates.context()
                context.minimum_version = context.maximum_version = version
                found = await outcome(own, tls=context, name="a.test")
                seen.setdefault(case, []).append(isinstance(found, Answer))
        return seen

    envoy, ours = await beside(configuration, talk, tmp_path)
    assert ours == envoy
    assert list(envoy.values()) == [[True, False], [False, True], [True, True]]
