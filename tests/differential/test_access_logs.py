"""Access logs side by side: one line with every operator that can say something here, HTTP, TLS and TCP."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from pywasmproxy.sansio.format_operators import OPERATORS
from tests.differential.beside import (
    FILE_LOG,
    TYPES,
    Host,
    ask,
    beside,
    bootstrap,
    cluster,
    listener,
    manager,
)
from tests.replay.proxy import free_port
from tests.support.certificates import Authority

ARGUMENTS = {
    "REQ": "x-a",
    "REQUEST_HEADER": "x-none?x-a",
    "RESP": "x-host",
    "RESPONSE_HEADER": "x-host",
    "TRAILER": "x-t",
    "RESPONSE_TRAILER": "x-t",
    "PATH": "NQ:PATH",
    "QUERY_PARAM": "q",
    "METADATA": "ROUTE:a:b",
    "DYNAMIC_METADATA": "a:b",
    "CLUSTER_METADATA": "a:b",
    "UPSTREAM_METADATA": "a:b",
    "FILTER_STATE": "k:PLAIN",
    "COMMON_DURATION": "DS_RX_BEG:DS_TX_END:ms",
    "ENVIRONMENT": "HOME",
    "DOWNSTREAM_PEER_CERT_V_START": "%Y",
    "COALESCE": '{"operators": [{"command": "REQ", "param": "x-a", "max_length": 3}, "PROTOCOL"]}',
}
FURTHER = {
    **{f"METADATA {of}": f"%METADATA({of}:a:b)%" for of in ("CLUSTER", "UPSTREAM_HOST", "LISTENER")},
    **{f"METADATA {of}": f"%METADATA({of}:a:b)%" for of in ("VIRTUAL_HOST", "LISTENER_FILTER_CHAIN")},
    "two": "%PROTOCOL%/%RESPONSE_CODE%",
    "short": "%REQ(x-a):2%",
    "first": '%COALESCE({"operators": [{"command": "REQ", "param": "x-none"}, "RESPONSE_CODE"]})%',
}

REQUESTS = [
    ("http", "/v?q=1"),
    ("http", "/other"),
    ("tls", "/v"),
    ("dead", "/v"),
    ("tcp", "/"),
    ("tcp dead", "/"),
]

TIMES = re.compile("START_TIME|EMIT_TIME|DURATION")
"""Of these only whether they are there is the same."""

NUMBERS = re.compile("CONNECTION_ID|_PORT$|UNIQUE_ID|STREAM_ID|TLS_SESSION_ID")
"""And of these: what a proxy counts or chooses for itself."""

DIFFERENT = {
    "REQUESTED_SERVER_NAME": "known here without a listener filter",
    "UPSTREAM_TRANSPORT_FAILURE_REASON": "no words of the operating system's",
    "RESPONSE_CODE_DETAILS": "likewise",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION": "where there was no connection, nothing was ready",
    "BYTES_RECEIVED": "bytes that came while the upstream was asked for in vain",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED": "likewise",
    "RESPONSE_FLAGS": "the order of several",
    "RESPONSE_FLAGS_LONG": "likewise",
}
"""What may differ where no upstream was reached, or (the first) at any time."""


def line() -> dict[str, str]:
    found = dict(FURTHER)
    for name in OPERATORS:
        argument = ARGUMENTS.get(name)
        found[name] = f"%{name}({argument})%" if argument else f"%{name}%"
    return found


def named(value: str) -> dict[str, Any]:
    return {"metadata": {"filter_metadata": {"a": {"b": value}}}}


class Setting:
    """Certificates, hosts, and the configuration between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority(folder)
        self.roots = authority.certificate
        self.server = authority.issue(
            "server", "DNS:a.test,URI:spiffe://a/server,IP:127.0.0.1", subject="/CN=server/O=Ours"
        )
        self.client = authority.issue(
            "client", "DNS:c.test,DNS:d.test,URI:spiffe://a/c,email:me@c.test", subject="/CN=client/O=Theirs"
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.roots)
        context.load_cert_chain(self.server.certificate, self.server.key)
        context.verify_mode = ssl.CERT_REQUIRED
        self.plain, self.tls = Host("plain"), Host("tls", context)
        self.dead = free_port()
        self.ports: dict[str, int] = {}

    def common_tls(self, pair: Any) -> dict[str, Any]:
        return {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(pair.certificate)},
                    "private_key": {"filename": str(pair.key)},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(self.roots)}},
        }

    def socket(self, kind: str, pair: Any, **fields: Any) -> dict[str, Any]:
        tls = f"{TYPES}.extensions.transport_sockets.tls.v3.{kind}"
        config = {"@type": tls, "common_tls_context": self.common_tls(pair), **fields}
        return {"transport_socket": {"name": "tls", "typed_config": config}}

    def configuration(self, port: int) -> dict[str, Any]:
        self.ports = {"http": port} | {name: free_port() for name in ("tls", "dead", "tcp", "tcp dead")}
        log = {"@type": FILE_LOG, "path": str(self.folder / f"{port}.log")}
        logs = [{"name": "log", "typed_config": {**log, "log_format": {"json_format": line()}}}]

        def http(to: str) -> dict[str, Any]:
            route = {"match": {"prefix": "/"}, "name": "rt", "route": {"cluster": to}, **named("route")}
            cheap = {"name": "cheap", "headers": [{"name": ":path", "string_match": {"prefix": "/v"}}]}
            return manager(
                [route], access_log=logs, virtual_host={"virtual_clusters": [cheap], **named("vh")}
            )

        def tcp(to: str) -> dict[str, Any]:
            kind = f"{TYPES}.extensions.filters.network.tcp_proxy.v3.TcpProxy"
            config = {"@type": kind, "stat_prefix": "t", "cluster": to, "access_log": logs}
            return {"name": "tcp", "typed_config": config}

        def chain(filter: dict[str, Any], **more: Any) -> dict[str, Any]:
            return {"name": "fc", "filters": [filter], **named("chain"), **more}

        secure = self.socket("DownstreamTlsContext", self.server, require_client_certificate=True)
        found = [
            listener(self.ports["http"], chain(http("plain")), **named("listener")),
            listener(self.ports["tls"], chain(http("tls"), **secure)),
            listener(self.ports["dead"], chain(http("dead"))),
            listener(self.ports["tcp"], chain(tcp("plain"))),
            listener(self.ports["tcp dead"], chain(tcp("dead"))),
        ]
        upstream = self.socket("UpstreamTlsContext", self.client, sni="a.test")
        clusters = [
            cluster("plain", self.plain.port, **named("cluster")),
            cluster("tls", self.tls.port, **upstream),
            cluster("dead", self.dead),
        ]
        for one in clusters:
            one["load_assignment"]["endpoints"][0]["lb_endpoints"][0] |= named("host")
        return bootstrap(found, clusters)

    async def talk(self, port: int) -> list[dict[str, Any]]:
        context = ssl.create_default_context(cafile=self.roots)
        context.load_cert_chain(self.client.certificate, self.client.key)
        for name, path in REQUESTS:
            options: dict[str, Any] = {"tls": context, "name": "a.test"} if name == "tls" else {}
            with contextlib.suppress(OSError, EOFError):
                await ask(self.ports[name], path, {"x-a": "some"}, body=b"abc", **options)
        return []

    def read(self, port: int, _: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The lines, which Envoy writes every ten seconds and at its end; in one order for both."""
        lines = [json.loads(text) for text in (self.folder / f"{port}.log").read_text().splitlines()]
        return sorted(
            map(self.steady, lines), key=lambda line: (line["DOWNSTREAM_LOCAL_ADDRESS"], str(line["PATH"]))
        )

    def steady(self, found: dict[str, Any]) -> dict[str, Any]:
        """Without what is each proxy's own."""
        names = {str(port): f"<{name}>" for name, port in self.ports.items()}
        names |= {str(one.port): f"<{one.name}>" for one in (self.plain, self.tls)} | {
            str(self.dead): "<dead>"
        }
        kept = {}
        for name, value in found.items():
            if value is not None and (TIMES.search(name) or NUMBERS.search(name)):
                kept[name] = type(value).__name__
            elif isinstance(value, str):
                port = re.compile(r"(127\.0\.0\.1):(\d+)")
                kept[name] = port.sub(lambda at: f"{at[1]}:{names.get(at[2], '<own>')}", value)
            else:
                kept[name] = value
        return kept


@pytest.mark.envoy
@pytest.mark.openssl
async def test_one_line_with_all_of_them(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    async with setting.plain.running(), setting.tls.running():
        envoy, ours = await beside(setting.configuration, setting.talk, tmp_path, after=setting.read)
    assert len(envoy) == len(ours) == len(REQUESTS)
    for number, (theirs, mine) in enumerate(zip(envoy, ours, strict=True)):
        reached = theirs["UPSTREAM_LOCAL_ADDRESS"] is not None
        differ = {
            name: (theirs[name], mine[name])
            for name in theirs
            if theirs[name] != mine[name]
            and not (name in DIFFERENT and (not reached or name == "REQUESTED_SERVER_NAME"))
        }
        assert differ == {}, number
    # The line says something: most operators have a value in one of the cases.
    known = {name for found in ours for name, value in found.items() if value is not None}
    assert len(known) > 100
