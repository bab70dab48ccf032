"""Clusters: discovery, hosts, timeouts, HTTP options in both places Envoy has them, warnings and refusals."""

from __future__ import annotations

import pytest

from pywasmproxy.config import common
from pywasmproxy.config.model import (
    Address,
    Cluster,
    ClusterType,
    DnsLookupFamily,
    Endpoint,
    Http1Options,
    Http2Options,
)
from tests.support.bootstrap import bootstrap, line_of, read, refused

CLUSTER = "static_resources.clusters[0]"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(fields: str = "", assignment: str | None = None) -> Cluster:
    parts = {"cluster": fields} | ({} if assignment is None else {"assignment": assignment})
    [found] = read(**parts).clusters
    return found


def warnings(**parts: str) -> list[tuple[str, str]]:
    return [(warning.path, warning.message) for warning in read(**parts).warnings]


def hosts(*endpoints: str) -> str:
    entries = ", ".join(f"{{endpoint: {{address: {{socket_address: {{{one}}}}}}}}}" for one in endpoints)
    return f"load_assignment: {{cluster_name: svc, endpoints: [{{lb_endpoints: [{entries}]}}]}}"


def options(fields: str) -> str:
    return f'typed_extension_protocol_options: {{{OPTIONS}: {{"@type": a.b/{OPTIONS}, {fields}}}}}'


def test_defaults() -> None:
    assert cluster() == Cluster("svc", endpoints=(Endpoint(Address("127.0.0.1", 8080)),))
    assert cluster().connect_timeout == 5.0
    assert read().cluster("svc") == cluster()
    assert read().cluster("nope") is None


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("STATIC", ClusterType.STATIC),
        ("strict_dns", ClusterType.STRICT_DNS),
        ("Logical_DNS", ClusterType.LOGICAL_DNS),
    ],
)
def test_types(written: str, kind: ClusterType) -> None:
    assert cluster(f"type: {written}").type is kind
    assert warnings(cluster=f"type: {written}\n    lb_policy: round_robin") == []


def test_everything_a_cluster_honours() -> None:
    lines = (
        "type: STRICT_DNS",
        "connectTimeout: 0.25s",
        "dns_lookup_family: v4_only",
        "per_connection_buffer_limit_bytes: 5",
        "common_http_protocol_options: {idle_timeout: 0s}",
        "http_protocol_options: {enable_trailers: true}",
        "metadata: {filter_metadata: {f: {k: v}}}",
        "alt_stat_name: other",
    )
    names = hosts("address: a.test, port_value: 80", 'address: "::1", port_value: 81')
    assert cluster("\n    ".join(lines), names) == Cluster(
        "svc",
        ClusterType.STRICT_DNS,
        (Endpoint(Address("a.test", 80)), Endpoint(Address("::1", 81))),
        connect_timeout=0.25,
        dns_lookup_family=DnsLookupFamily.V4_ONLY,
        http1=Http1Options(enable_trailers=True),
        idle_timeout=None,
        buffer_limit=5,
        metadata={"f": {"k": "v"}},
    )
    assert warnings(cluster="\n    ".join(lines), assignment=names) == []


@pytest.mark.parametrize("place", ["explicit_http_config", "use_downstream_protocol_config", "autoConfig"])
def test_http_options_in_their_newer_place(place: str) -> None:
    fields = options(
        f"common_http_protocol_options: {{idle_timeout: 9s}}, "
        f"{place}: {{http_protocol_options: {{enable_trailers: true}}}}"
    )
    assert cluster(fields).http1.enable_trailers
    assert cluster(fields).idle_timeout == 9
    assert warnings(cluster=fields) == []
    assert not cluster(options(f"{place}: {{}}")).http1.enable_trailers


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        (options("http_filters: []"), f".typed_extension_protocol_options.['{OPTIONS}'].http_filters"),
        ("http2_protocol_options: {hpack_table_size: 1}", ".http2_protocol_options.hpack_table_size"),
        ("lb_policy: 4", ".lb_policy"),  # ORIGINAL_DST_LB
        ("type: EDS", ".type"),
        ("cluster_type: {name: x}", ".cluster_type"),
        ("dns_refresh_rate: 5s", ".dns_refresh_rate"),
        (
            "typed_extension_protocol_options: {other: {'@type': a/b.C}}",
            ".typed_extension_protocol_options.other",
        ),
        ("http_protocol_options: {header_key_format: {}}", ".http_protocol_options.header_key_format"),
        (
            "common_http_protocol_options: {max_requests_per_connection: 1}",
            ".common_http_protocol_options.max_requests_per_connection",
        ),
    ],
)
def test_what_is_not_supported_warns_once(fields: str, path: str) -> None:
    [(found, message)] = warnings(cluster=fields)
    assert found == CLUSTER + path
    assert "not supported" in message
    assert "yet" in message or "custom" in message


@pytest.mark.parametrize(
    "fields",
    [
        "http2_protocol_options: {}",
        options("explicit_http_config: {http2_protocol_options: {}}"),
    ],
)
def test_http2(fields: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster(fields).http2 == Http2Options()
    some = "max_concurrent_streams: 7, initial_stream_window_size: 70000, allow_connect: false"
    assert cluster(fields.replace("options: {}", f"options: {{{some}}}")).http2 == Http2Options(7, 70000)
    assert warnings(cluster=fields) == []
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    [(path, message)] = warnings(cluster=fields)
    assert path.endswith(".http2_protocol_options")
    assert message == "the package h2 is not installed (pip install 'pywasmvm[h2]'): HTTP/1.1 is spoken"
    assert cluster(fields).http2 is None


def test_the_newer_place_is_the_one_that_counts() -> None:
    fields = "http2_protocol_options: {}\n    " + options("explicit_http_config: {http_protocol_options: {}}")
    assert cluster(fields).http2 is None


def test_load_assignment_details() -> None:
    def endpoints(fields: str) -> str:
        where = "endpoint: {hostname: h, address: {socket_address: {address: 10.0.0.1, port_value: 1}}}"
        locality = f"{{locality: {{}}, priority: 0, lb_endpoints: [{{{where}{fields}}}]}}"
        return f"load_assignment: {{endpoints: [{locality}]}}"

    assert cluster(assignment=endpoints("")).endpoints == (Endpoint(Address("10.0.0.1", 1), "h"),)
    assert warnings(assignment=endpoints(", load_balancing_weight: 1, health_status: HEALTHY")) == []
    weighted = cluster(assignment=endpoints(", load_balancing_weight: 5, health_status: DRAINING"))
    assert weighted.endpoints == (Endpoint(Address("10.0.0.1", 1), "h", weight=5, healthy=False),)


def test_a_cluster_may_be_without_hosts() -> None:
    assert cluster(assignment="").endpoints == ()
    assert cluster(assignment="load_assignment: {cluster_name: svc}").endpoints == ()
    assert (
        cluster(assignment="load_assignment: {endpoints: [{lb_endpoints: [{}, {endpoint: {}}]}]}").endpoints
        == ()
    )


def test_hosts_that_cannot_be_reached_are_left_out() -> None:
    pipe = "load_assignment: {endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /run/x}}}}]}]}"
    assert cluster(assignment=pipe).endpoints == ()
    assert cluster("type: LOGICAL_DNS", pipe).endpoints == ()
    where = CLUSTER + ".load_assignment.endpoints[0].lb_endpoints[0].endpoint.address"
    assert warnings(assignment=pipe) == [
        (where, "addresses of kind pipe are not supported yet: the host is left out")
    ]


def test_hosts_of_api_v2() -> None:
    found = cluster("type: LOGICAL_DNS", "hosts: [{socket_address: {address: a.test, port_value: 80}}]")
    assert found.endpoints == (Endpoint(Address("a.test", 80)),)
    udp = "hosts: [{socket_address: {address: 127.0.0.1, port_value: 80, protocol: UDP}}]"
    assert cluster(assignment=udp).endpoints == ()


@pytest.mark.parametrize(
    ("fields", "assignment", "message"),
    [
        (
            "",
            hosts("address: a.test, port_value: 1"),
            "malformed IP address: a.test; a name needs the cluster type STRICT_DNS or LOGICAL_DNS",
        ),
        (
            "type: LOGICAL_DNS",
            hosts("address: a, port_value: 1", "address: b, port_value: 1"),
            "a LOGICAL_DNS cluster needs exactly one endpoint",
        ),
        ("type: LOGICAL_DNS", "", "a LOGICAL_DNS cluster needs exactly one endpoint"),
        ("connect_timeout: 0s", "", "a duration above zero is needed here"),
        ("connect_timeout: 250ms", "", "expected a duration in seconds such as 1.5s, found '250ms'"),
        (
            "type: STATC",
            "",
            "'STATC' is no cluster type; known: STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST",
        ),
        (
            "dns_lookup_family: V5",
            "",
            "'V5' is no DNS lookup family; known: AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED, ALL",
        ),
        (
            "lb_policy: []",
            "",
            "expected one of ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, ORIGINAL_DST_LB, MAGLEV, "
            "CLUSTER_PROVIDED, LOAD_BALANCING_POLICY_CONFIG, found a list",
        ),
        ("type: STATIC\n    cluster_type: {}", "", "only one of type and cluster_type can be set"),
        ("hosts: []", hosts(), "only one of load_assignment and hosts can be set"),
        ("loadAssignmnt: {}", "", "unknown field 'loadAssignmnt' in Cluster"),
        ("", "load_assignment: {endpoints: x}", "expected a mapping, found 'x'"),
        (
            options("explicit_http_config: {}, auto_config: {}"),
            "",
            "only one of explicit_http_config and auto_config can be set",
        ),
    ],
)
def test_refused(fields: str, assignment: str, message: str) -> None:
    error = refused(cluster=fields, assignment=assignment)
    assert error.message == message
    assert error.path.startswith(CLUSTER)


def test_suggestions_and_lines() -> None:
    error = refused(cluster="connect_timeut: 1s")
    assert error.suggestion == "connect_timeout"
    assert error.line == line_of(bootstrap(cluster="connect_timeut: 1s"), "connect_timeut")
    assert refused(cluster="connect_timeout: 250ms").suggestion == "0.25s"
    assert refused(cluster="type: STRICT_DSN").suggestion == "STRICT_DNS"
