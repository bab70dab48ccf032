"""Properties: every attribute of the table, encodings, phases."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from abi.proxy_wasm import protobuf
from abi.proxy_wasm.calls import properties
from abi.proxy_wasm.filter_state import MAX_STORED
from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.protobuf import field, varint
from abi.proxy_wasm.stream_info import CertificateFacts, StreamInfo, TlsFacts
from abi.proxy_wasm.types import Status
from abi.proxy_wasm.wire import encode_map
from tests.abi.rig import BYTES, Rig

OK, MISSING, OPAQUE = Status.OK, Status.NOT_FOUND, Status.SERIALIZATION_FAILURE

REQUEST = [
    (":authority", "test.local"),
    (":path", "/p/a?x=1&y=2"),
    (":method", "POST"),
    (":scheme", "http"),
    ("referer", "http://r/"),
    ("user-agent", "ua/1"),
    ("x-request-id", "id-1"),
    ("x-dup", "1"),
    ("x-dup", "2"),
]
RESPONSE = [(":status", "200"), ("x-up", "u1")]
NODE: dict[str, object] = {
    "id": "node-1",
    "cluster": "clu",
    "metadata": {"NAME": "n1", "N": 3, "B": True, "L": ["a", "b"], "M": {"k": "v"}, "NIL": None},
    "locality": {"region": "r1", "zone": "z1"},
}


def info() -> StreamInfo:
    return StreamInfo(
        protocol="HTTP/1.1",
        start_time=1_700_000_000_000_000_001,
        request_body_size=3,
        response_body_size=12,
        response_flags=0x4000,
        connection_id=7,
        source_address="127.0.0.1:60834",
        destination_address="[::1]:8099",
        cluster_name="svc",
        route_name="svc_route",
        virtual_host_name="local_service",
        node=NODE,
    )


def number(value: int) -> bytes:
    return struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF)


def ask(rig: Rig, path: str) -> Any:
    status, data = rig.ask("proxy_get_property", path.replace("/", "\0").encode(), BYTES)
    return data if status == OK else status


def asked_in(callback: str, paths: list[str], facts: StreamInfo | None = None) -> dict[str, Any]:
    """What properties answer in a callback of one complete exchange."""
    rig = Rig(name="p", root_id="r", vm_id="v")
    rig.during(callback, lambda: {path: ask(rig, path) for path in paths})
    facts = facts or info()
    with rig.plugin.http_stream(facts) as stream:
        stream.on_request_headers(HeaderMap(REQUEST), False)
        stream.on_request_body(bytearray(b"abc"), True)
        facts.response_code, facts.response_code_details = 200, "via upstream x"
        facts.upstream_address, facts.upstream_local_address = "10.0.0.1:8080", "10.0.0.2:4711"
        facts.upstream_transport_failure_reason, facts.upstream_attempt_count = "", 1
        facts.upstream_pool_ready_duration = 55
        stream.on_response_headers(HeaderMap(RESPONSE), False)
        stream.on_response_body(bytearray(b"Hello World!"), False)
        stream.on_response_trailers(HeaderMap([("x-rt", "1")]))
        facts.request_duration, facts.backend_latency = 1000, 900
        rig.plugin.tick()
    result: dict[str, Any] = rig.results[callback]
    return result


BYTE_SIZE = sum(len(n) + len(v) for n, v in REQUEST)
EMPTY_MAP = bytes(4)
LISTED = encode_map([(n.encode(), v.encode()) for n, v in REQUEST])

# path -> value in request headers, in response headers, in log
SIDES = ("connection", "upstream")

TABLE: list[tuple[str, Any, Any, Any]] = [
    ("request/path", b"/p/a?x=1&y=2", MISSING, b"/p/a?x=1&y=2"),
    ("request/url_path", b"/p/a", MISSING, b"/p/a"),
    ("request/query", b"x=1&y=2", MISSING, b"x=1&y=2"),
    ("request/host", b"test.local", MISSING, b"test.local"),
    ("request/scheme", b"http", MISSING, b"http"),
    ("request/method", b"POST", MISSING, b"POST"),
    ("request/referer", b"http:", MISSING, b"http:"),  # replaced below: its value has slashes
    ("request/useragent", b"ua/1", MISSING, b"ua/1"),
    ("request/id", b"id-1", MISSING, b"id-1"),
    ("request/headers", LISTED, EMPTY_MAP, LISTED),
    ("request/headers/x-dup", b"1,2", MISSING, b"1,2"),
    ("request/headers/X-Dup", b"1,2", MISSING, b"1,2"),
    ("request/headers/:path", b"/p/a?x=1&y=2", MISSING, b"/p/a?x=1&y=2"),
    ("request/headers/Host", b"test.local", MISSING, b"test.local"),
    ("request/headers/nope", MISSING, MISSING, MISSING),
    ("request/protocol", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1"),
    ("request/time", number(1_700_000_000_000_000_001), number(1_700_000_000_000_000_001), None),
    ("request/duration", MISSING, MISSING, number(1000)),
    ("request/size", number(3), number(3), number(3)),
    ("request/total_size", number(3 + BYTE_SIZE), number(3), number(3 + BYTE_SIZE)),
    ("response/code", MISSING, number(200), number(200)),
    ("response/code_details", MISSING, b"via_upstream_x", b"via_upstream_x"),
    ("response/flags", number(0x4000), number(0x4000), number(0x4000)),
    ("response/grpc_status", MISSING, number(2), number(2)),
    ("response/headers", EMPTY_MAP, encode_map([(b":status", b"200"), (b"x-up", b"u1")]), None),
    ("response/headers/x-up", MISSING, b"u1", b"u1"),
    ("response/trailers", EMPTY_MAP, EMPTY_MAP, encode_map([(b"x-rt", b"1")])),
    ("response/trailers/x-rt", MISSING, MISSING, b"1"),
    ("response/size", number(12), number(12), number(12)),
    ("response/total_size", number(12), number(12 + 16), number(12 + 16 + 5)),
    ("response/backend_latency", MISSING, MISSING, number(900)),
    ("source/address", b"127.0.0.1:60834", b"127.0.0.1:60834", None),
    ("source/port", number(60834), number(60834), None),
    ("destination/address", b"[::1]:8099", b"[::1]:8099", None),
    ("destination/port", number(8099), number(8099), None),
    ("connection/id", number(7), number(7), None),
    ("connection_id", number(7), number(7), None),
    ("connection/mtls", b"\0", b"\0", None),
    ("connection/requested_server_name", b"", b"", None),
    ("connection/termination_details", MISSING, MISSING, None),
    ("connection/transport_failure_reason", MISSING, MISSING, None),
    ("upstream/address", MISSING, b"10.0.0.1:8080", None),
    ("upstream/port", MISSING, number(8080), None),
    ("upstream/local_address", MISSING, b"10.0.0.2:4711", None),
    ("upstream/transport_failure_reason", MISSING, b"", None),
    ("upstream/request_attempt_count", number(0), number(1), None),
    ("upstream/cx_pool_ready_duration", MISSING, number(55), None),
    ("upstream/locality", MISSING, b"", None),
    ("upstream/locality/zone", MISSING, b"", None),
    *((f"{side}/{name.decode()}", MISSING, MISSING, None) for side in SIDES for name in properties.OF_TLS),
    ("metadata", b"", b"", None),
    ("metadata/filter_metadata", EMPTY_MAP, EMPTY_MAP, None),
    ("metadata/filter_metadata/envoy.lb", MISSING, MISSING, None),
    ("filter_state", OPAQUE, OPAQUE, None),
    ("filter_state/wasm.k", MISSING, MISSING, None),
    ("filter_state/k", MISSING, MISSING, None),
    ("plugin_name", b"p", b"p", None),
    ("plugin_root_id", b"r", b"r", None),
    ("plugin_vm_id", b"v", b"v", None),
    ("plugin_name/x", MISSING, MISSING, None),
    ("xds/cluster_name", b"svc", b"svc", None),
    ("xds/cluster_metadata", b"", b"", None),
    ("xds/route_name", b"svc_route", b"svc_route", None),
    ("xds/route_metadata", b"", b"", None),
    ("xds/virtual_host_name", b"local_service", b"local_service", None),
    ("xds/virtual_host_metadata", b"", b"", None),
    ("xds/upstream_host_metadata", MISSING, OPAQUE, None),
    ("xds/filter_chain_name", b"", b"", None),
    ("xds/listener_direction", number(0), number(0), None),
    ("xds/listener_metadata", b"", b"", None),
    ("xds/nope", MISSING, MISSING, None),
    ("cluster_name", b"svc", b"svc", None),
    ("cluster_metadata", b"", b"", None),
    ("route_name", b"svc_route", b"svc_route", None),
    ("route_metadata", b"", b"", None),
    ("listener_direction", number(0), number(0), None),
    ("listener_metadata", b"", b"", None),
    ("upstream_host_metadata", MISSING, OPAQUE, None),
    *((group, OPAQUE, OPAQUE, OPAQUE) for group in ("request", "response", "connection", "source")),
    *((group, OPAQUE, OPAQUE, OPAQUE) for group in ("destination", "upstream", "xds", "")),
    *((path, MISSING, MISSING, MISSING) for path in ("nope", "nope/x", "request/nope")),
    *((path, MISSING, MISSING, MISSING) for path in ("wasm/x", "request.path")),
]
PATHS = [path for path, *_ in TABLE]


@pytest.mark.parametrize(
    ("callback", "column"),
    [("proxy_on_request_headers", 1), ("proxy_on_response_headers", 2), ("proxy_on_log", 3)],
)
def test_every_attribute_in_every_phase(callback: str, column: int) -> None:
    seen = asked_in(callback, PATHS)
    wanted = {row[0]: row[column] if row[column] is not None else row[2] for row in TABLE}
    referer = b"http://r/"
    wanted["request/referer"] = wanted["request/referer"] if column == 2 else referer
    assert seen == wanted


def test_every_attribute_of_the_table_is_tested() -> None:
    tested = {tuple(path.encode().split(b"/")[:2]) for path in PATHS}
    wanted = {(group, name) for group, members in properties.STREAM.items() for name in members}
    assert wanted <= tested
    assert {(name,) for name in properties.TOP} <= tested


def test_outside_of_a_stream_only_plugin_and_node_answer() -> None:
    seen = asked_in("proxy_on_tick", PATHS)
    known = {"plugin_name": b"p", "plugin_root_id": b"r", "plugin_vm_id": b"v", "xds": OPAQUE, "": OPAQUE}
    assert seen == {path: known.get(path, MISSING) for path in PATHS}


def test_node_in_both_spellings() -> None:
    wire = protobuf.node_message(NODE)
    values = {
        "": wire,
        "/id": b"node-1",
        "/cluster": b"clu",
        "/metadata/NAME": b"n1",
        "/metadata/N": struct.pack("<d", 3),
        "/metadata/B": b"\1",
        "/metadata/L": encode_map([(b"a", b""), (b"b", b"")]),
        "/metadata/L/1": b"b",
        "/metadata/L/2": MISSING,
        "/metadata/L/x": MISSING,
        "/metadata/M": encode_map([(b"k", b"v")]),
        "/metadata/M/k": b"v",
        "/metadata/NIL": OPAQUE,
        "/metadata": OPAQUE,  # a null in it has no byte form
        "/metadata/nope": MISSING,
        "/locality": protobuf.locality_message({"region": "r1", "zone": "z1"}),
        "/locality/zone": b"z1",
        "/locality/sub_zone": b"",
        "/nope": MISSING,
    }
    wanted = {root + path: value for root in ("node", "xds/node") for path, value in values.items()}
    assert asked_in("proxy_on_request_headers", list(wanted)) == wanted


@pytest.mark.parametrize("callback", ["proxy_on_request_headers", "proxy_on_log", "proxy_on_tick"])
def test_attributes_that_are_not_here(callback: str) -> None:
    paths = [name.replace(".", "/") for name in properties.ABSENT]
    assert asked_in(callback, paths) == dict.fromkeys(paths, MISSING)


def test_node_outside_of_a_stream_comes_from_the_host() -> None:
    rig = Rig()
    assert ask(rig, "xds/node/id") == MISSING
    rig.host.node = NODE
    assert ask(rig, "xds/node/id") == b"node-1"
    assert ask(rig, "node/cluster") == b"clu"


def test_a_node_without_parts() -> None:
    facts = info()
    facts.node = {"id": "only"}
    paths = ["node", "node/id", "node/cluster", "node/metadata", "node/locality", "node/locality/zone"]
    answers = list(asked_in("proxy_on_log", paths, facts).values())
    assert answers == [b"\x0a\x04only", b"only", b"", EMPTY_MAP, b"", b""]


def test_metadata_of_filters_and_routes() -> None:
    facts = info()
    facts.dynamic_metadata = {"envoy.lb": {"canary": True, "weight": 2}}
    facts.route_metadata = {"ns": {"k": "v"}}
    seen = asked_in(
        "proxy_on_request_headers",
        [
            "metadata",
            "metadata/filter_metadata/envoy.lb/canary",
            "metadata/filter_metadata/envoy.lb/weight",
            "xds/route_metadata/filter_metadata/ns/k",
            "route_metadata/filter_metadata/ns",
        ],
        facts,
    )
    assert list(seen.values()) == [
        protobuf.metadata_message(facts.dynamic_metadata),
        b"\1",
        struct.pack("<d", 2),
        b"v",
        encode_map([(b"k", b"v")]),
    ]


def test_request_size_is_the_content_length_if_given() -> None:
    rig = Rig()
    rig.during("proxy_on_request_headers", lambda: ask(rig, "request/size"))
    for length, size in (("42", 42), ("nonsense", 9)):
        stream = rig.plugin.http_stream(StreamInfo(request_body_size=9))
        stream.on_request_headers(HeaderMap([("content-length", length)]), False)
        assert rig.results["proxy_on_request_headers"] == number(size)


@pytest.mark.parametrize(
    ("code", "headers", "status"),
    [
        (200, [("grpc-status", "7")], 7),
        (200, [("grpc-status", "x")], 2),
        (403, [], 7),
        (503, [], 14),
        (401, [], 16),
        (404, [], 12),
        (400, [], 13),
        (429, [], 14),
        (500, [], 2),
    ],
)
def test_grpc_status(code: int, headers: list[tuple[str, str]], status: int) -> None:
    rig = Rig()
    rig.during("proxy_on_response_headers", lambda: ask(rig, "response/grpc_status"))
    rig.plugin.http_stream(StreamInfo(response_code=code)).on_response_headers(HeaderMap(headers), True)
    assert rig.results["proxy_on_response_headers"] == number(status)


def test_a_trailing_nul_does_not_matter() -> None:
    rig = Rig(vm_id="v")
    assert rig.ask("proxy_get_property", b"plugin_vm_id\0", BYTES) == (OK, b"v")
    assert rig.ask("proxy_get_property", b"plugin_vm_id\0\0", BYTES) == (MISSING, None)
    assert rig.ask("proxy_get_property", b"\0", BYTES) == (MISSING, None)
    assert rig.ask("proxy_get_property", b"", BYTES) == (OPAQUE, None)


def test_own_properties_are_shared_by_the_exchange() -> None:
    facts, one, two = StreamInfo(), Rig(), Rig()

    def store() -> list[Any]:
        pairs = ((b"k", b"v"), (b"a\0b", b"2"), (b"plugin_name", b"shadow"), (b"request", b"r"))
        return [one.ask("proxy_set_property", key, value) for key, value in pairs]

    one.during("proxy_on_request_headers", store)
    paths = ["k", "a/b", "a", "k/x", "plugin_name", "request", "filter_state/wasm.k", "filter_state/wasm.x"]
    two.during("proxy_on_request_headers", lambda: [ask(two, path) for path in paths])
    for rig in (one, two):
        rig.plugin.http_stream(facts).on_request_headers(HeaderMap(), True)
    assert one.results["proxy_on_request_headers"] == [OK] * 4
    assert two.results["proxy_on_request_headers"] == [
        b"v",
        MISSING,
        MISSING,
        MISSING,
        b"",
        OPAQUE,
        b"v",
        MISSING,
    ]
    assert facts.filter_state.get(b"wasm.a\0b") == b"2"


def test_own_properties_last_as_long_as_the_exchange() -> None:
    rig = Rig()
    rig.during("proxy_on_request_headers", lambda: rig.ask("proxy_set_property", b"k", b"v"))
    later = ("proxy_on_response_headers", "proxy_on_log", "proxy_on_done", "proxy_on_delete")
    for name in later:
        rig.during(name, lambda: ask(rig, "k"))
    for value in (b"v", MISSING):  # the second exchange does not set it
        with rig.plugin.http_stream() as stream:
            stream.on_request_headers(HeaderMap(), True)
            stream.on_response_headers(HeaderMap(), True)
        assert [rig.results[name] for name in later] == [value] * 4
        rig.hooks.pop("proxy_on_request_headers", None)


def test_a_property_that_was_declared_read_only_is_set_once() -> None:
    declared = field(1, "k") + varint(2 << 3) + varint(1)

    def declare(rig: Rig) -> object:
        return rig.ask("proxy_call_foreign_function", b"declare_property", declared, BYTES)

    rig = Rig(hooks={"proxy_on_configure": declare})
    assert rig.results["proxy_on_configure"] == (OK, b"")
    values = [(b"k", b"1"), (b"k", b"2"), (b"other", b"1"), (b"other", b"2")]
    rig.during("proxy_on_request_headers", lambda: [rig.ask("proxy_set_property", *one) for one in values])
    rig.during("proxy_on_log", lambda: ask(rig, "k"))
    with rig.plugin.http_stream() as stream:
        stream.on_request_headers(HeaderMap(), True)
    assert rig.results["proxy_on_request_headers"] == [OK, Status.BAD_ARGUMENT, OK, OK]
    assert rig.results["proxy_on_log"] == b"1"


def test_attributes_that_most_exchanges_do_not_have() -> None:
    facts = info()
    facts.connection_termination_details = "rbac_access_denied"
    facts.downstream_tls = TlsFacts("TLSv1.3", None, CertificateFacts("CN=me", ("a", "b"), (), "00ff"))
    facts.listener_direction = 2
    facts.upstream_transport_failure_reason = "TLS error"
    wanted = {
        "connection/termination_details": b"rbac_access_denied",
        "connection/mtls": b"\1",
        "connection/subject_local_certificate": b"",
        "connection/subject_peer_certificate": b"CN=me",
        "connection/dns_san_peer_certificate": b"a",
        "connection/uri_san_peer_certificate": MISSING,
        "connection/sha256_peer_certificate_digest": b"00ff",
        "listener_direction": number(2),
        "xds/listener_direction": number(2),
        "upstream/transport_failure_reason": b"TLS error",
    }
    assert asked_in("proxy_on_request_headers", list(wanted), facts) == wanted


def test_properties_cannot_be_set_outside_of_a_stream() -> None:
    rig = Rig()
    rig.during("proxy_on_tick", lambda: rig.ask("proxy_set_property", b"k", b"v"))
    rig.plugin.tick()
    assert rig.results["proxy_on_tick"] == MISSING


def test_properties_outside_memory() -> None:
    rig = Rig()
    assert rig.ask("proxy_get_property", 0xFFFFFFF0, 64, BYTES)[0] == Status.INVALID_MEMORY_ACCESS
    assert rig.ask("proxy_get_property", b"plugin_name", 0xFFFFFFF0, 0) == Status.INVALID_MEMORY_ACCESS
    assert rig.ask("proxy_set_property", b"k", 0xFFFFFFF0, 64) == Status.INVALID_MEMORY_ACCESS


def test_the_vm_itself_has_no_names() -> None:
    rig = Rig(name="p", root_id="r", vm_id="v")
    assert [ask(rig, p) for p in ("plugin_name", "plugin_root_id", "plugin_vm_id")] == [b"", b"", b"v"]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("é", "é".encode()),
        (b"\xff", b"\xff"),
        (True, b"\1"),
        (-1, b"\xff" * 8),
        (1.5, struct.pack("<d", 1.5)),
        ([], EMPTY_MAP),
        ({"a": 1}, encode_map([(b"a", number(1))])),
        (object(), OPAQUE),
        ([object()], OPAQUE),
        (properties.MISSING, MISSING),
    ],
)
def test_encoding(value: object, data: object) -> None:
    assert properties.encode(value) == data


def test_an_exchange_cannot_store_without_end() -> None:
    rig, facts = Rig(), StreamInfo()
    assert facts.filter_state.put(b"wasm.k", bytes(MAX_STORED - 16))
    answers = [(b"a", b"12345"), (b"a", b"1234"), (b"b", b"")]
    rig.during(
        "proxy_on_request_headers", lambda: [rig.ask("proxy_set_property", *answer) for answer in answers]
    )
    rig.plugin.http_stream(facts).on_request_headers(HeaderMap(), True)
    full = Status.INTERNAL_FAILURE
    assert rig.results["proxy_on_request_headers"] == [full, OK, full]
