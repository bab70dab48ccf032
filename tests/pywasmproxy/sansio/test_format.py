"""Format strings: what each operator says, what is missing, what is refused. Measured on Envoy."""

from __future__ import annotations

import json
from datetime import timedelta, timezone

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.sansio.format import FormatError, JsonTemplate, Moment, Origin, Template
from pywasmproxy.sansio.format_operators import OPERATORS, UNAVAILABLE
from pywasmproxy.sansio.format_time import format_time

START = 1_795_684_981_793_528_000  # 2026-11-26T09:23:01.793528Z
ORIGIN = Origin(hostname="vm", environ={"SET": "value"})
MOMENT = Moment(now=START + 4_000_000, access_log_type="DownstreamEnd")


def exchange() -> StreamInfo:
    info = StreamInfo(
        request_headers=HeaderMap(
            [
                (":authority", "h.local:80"),
                (":path", "/up/a?x=1&y=a%20b"),
                (":method", "POST"),
                ("x-a", 'say "hi"'),
                ("x-b", "abcdef"),
                ("x-b", "second"),
                ("x-raw", b"\xff\xfe"),
                ("x-request-id", "39d6a4b4"),
            ]
        ),
        response_headers=HeaderMap([(":status", "200"), ("x-r", "answer")]),
        response_trailers=HeaderMap([("x-t", "end")]),
        protocol="HTTP/1.1",
        start_time=START,
        request_duration=3_900_000,
        request_body_size=3,
        response_body_size=2,
        response_code=200,
        response_code_details="via_upstream",
        connection_id=7,
        source_address="1.2.3.4:5678",
        direct_source_address="127.0.0.1:44802",
        destination_address="[::1]:8080",
        upstream_address="127.0.0.1:32851",
        upstream_local_address="127.0.0.1:58962",
        upstream_attempt_count=1,
        upstream_pool_ready_duration=2_000_000,
        requested_server_name="sni.local",
        route_name="rn",
        cluster_name="svc",
        filter_chain_name="fc",
        route_metadata={"a": {"b": "c", "n": 5.0, "m": {"x": True}}},
        cluster_metadata={"a": {"b": "cm"}},
        dynamic_metadata={"envoy.lb": {"key": "value"}},
        request_received_after=1_000_000,
        upstream_request_began_after=1_000_000,
        upstream_request_sent_after=1_200_000,
        upstream_response_began_after=2_900_000,
        upstream_response_received_after=3_100_000,
        response_began_after=3_000_000,
    )
    info.filter_state.put(b"wasm.color", b"red")
    return info


def fill(text: str, info: StreamInfo | None = None) -> str:
    return Template(text, origin=ORIGIN).fill(info or exchange(), MOMENT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("100%%", "100%"),
        ("%PROTOCOL%/%RESPONSE_CODE%", "HTTP/1.1/200"),
        ('%COALESCE({"operators": ["GRPC_STATUS", {"command": "REQ", "param": "x-b"}]})%', "abcdef"),
        ('%COALESCE({"operators": [{"command": "REQ", "param": "x-b", "max_length": 3}]})%', "abc"),
        ('%COALESCE({"operators": [{"command": "REQ", "param": "no"}, "TRACE_ID"]})%', "-"),
        ("%REQ(X-A)%", 'say "hi"'),
        ("%REQ(x-none)%", "-"),
        ("%REQ(x-none?x-b):3%", "abc"),
        ("%REQ(:PATH)%", "/up/a?x=1&y=a%20b"),
        ("%REQUEST_HEADER(x-a)%", 'say "hi"'),
        ("%RESP(X-R)%|%RESPONSE_HEADER(x-r)%", "answer|answer"),
        ("%TRAILER(x-t)%", "end"),
        ("%PATH%", "/up/a?x=1&y=a%20b"),
        ("%PATH(NQ)%", "/up/a"),
        ("%PATH(NQ:ORIG)%", "-"),
        ("%QUERY_PARAM(y)%", "a b"),
        ("%QUERY_PARAM(z)%", "-"),
        ("%QUERY_PARAMS%", "x=1&y=a%20b"),
        ("%BYTES_RECEIVED% %BYTES_SENT%", "3 2"),
        ("%DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION%", "3 1 1"),
        ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "2 1"),
        ("%COMMON_DURATION(US_TX_BEG:US_RX_END:us)%", "2100"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%", "1"),
        ("%RESPONSE_FLAGS%", "-"),
        ("%RESPONSE_CODE_DETAILS%", "via_upstream"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "1.2.3.4:5678"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "1.2.3.4"),
        ("%DOWNSTREAM_REMOTE_PORT%", "5678"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "127.0.0.1:44802"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "::1"),
        ("%UPSTREAM_HOST% %UPSTREAM_REMOTE_PORT%", "127.0.0.1:32851 32851"),
        ("%UPSTREAM_LOCAL_ADDRESS%", "127.0.0.1:58962"),
        ("%UPSTREAM_CLUSTER% %ROUTE_NAME% %FILTER_CHAIN_NAME%", "svc rn fc"),
        ("%UPSTREAM_PROTOCOL% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "HTTP/1.1 1"),
        ("%UPSTREAM_CONNECTION_POOL_READY_DURATION%", "2"),
        ("%CONNECTION_ID% %STREAM_ID%", "7 39d6a4b4"),
        ("%HOSTNAME% %ENVIRONMENT(SET)% %ENVIRONMENT(UNSET)%", "vm value -"),
        ("%REQUESTED_SERVER_NAME%", "sni.local"),
        ("%ACCESS_LOG_TYPE%", "DownstreamEnd"),
        ("%METADATA(ROUTE:a:b)% %METADATA(CLUSTER:a:b)%", "c cm"),
        ("%METADATA(ROUTE:a)%", '{"b":"c","m":{"x":true},"n":5}'),
        ("%DYNAMIC_METADATA(envoy.lb:key)% %CLUSTER_METADATA(a:b)%", "value cm"),
        ('%DYNAMIC_METADATA(["envoy.lb","key"])%', "value"),
        ("%DYNAMIC_METADATA(envoy.lb:none)%", "-"),
        ("%FILTER_STATE(wasm.color:PLAIN)%", "red"),
        ("%GRPC_STATUS%", "-"),
        ("%START_TIME%", "2026-11-26T09:23:01.793Z"),
        ("%EMIT_TIME%", "2026-11-26T09:23:01.797Z"),
        (
            "%START_TIME(%Y/%m/%dT%H:%M:%S.%3fZ %f %6f %s)%",
            "2026/11/26T09:23:01.793Z 793528000 793528 1795684981",
        ),
        ("%START_TIME(%E3S %E*S %Ez)%", "01.793 01.793528 +00:00"),
        ("%TRACE_ID%", "-"),
    ],
)
def test_operators(text: str, expected: str) -> None:
    assert fill(text) == expected


def test_every_operator_is_filled_without_facts() -> None:
    """Nothing of an exchange that ended before its head is known, and no operator stumbles over that."""
    arguments = {
        "COMMON_DURATION": "(DS_RX_BEG:DS_TX_END)",
        "METADATA": "(ROUTE:a)",
        "DYNAMIC_METADATA": "(a)",
        "CLUSTER_METADATA": "(a)",
        "UPSTREAM_METADATA": "(a)",
        "COALESCE": '({"operators": ["PROTOCOL"]})',
        "FILTER_STATE": "(a)",
        "ENVIRONMENT": "(A)",
        "QUERY_PARAM": "(a)",
    }
    headers = dict.fromkeys(
        ("REQ", "REQUEST_HEADER", "RESP", "RESPONSE_HEADER", "TRAILER", "RESPONSE_TRAILER"), "(a)"
    )
    for name in OPERATORS:
        text = f"%{name}{(arguments | headers).get(name, '')}%"
        assert isinstance(Template(text).fill(StreamInfo(), Moment()), str)


def test_a_zone_of_ones_own() -> None:
    assert format_time(START, "%H:%M%z %Ez", timezone(timedelta(hours=5, minutes=30))) == "14:53+0530 +05:30"


@pytest.mark.parametrize(
    ("flags", "short", "long"),
    [
        (0x20, "UF", "UpstreamConnectionFailure"),
        (0x8020, "URX,UF", "UpstreamRetryLimitExceeded,UpstreamConnectionFailure"),
        (0x100_0100, "NR,NC", "NoRouteFound,NoClusterFound"),
    ],
)
def test_response_flags(flags: int, short: str, long: str) -> None:
    info = StreamInfo(response_flags=flags)
    assert fill("%RESPONSE_FLAGS%", info) == short
    assert fill("%RESPONSE_FLAGS_LONG%", info) == long


@pytest.mark.parametrize(
    ("status", "form", "expected"),
    [
        ("0", "", "OK"),
        ("1", "(SNAKE_STRING)", "CANCELLED"),
        ("14", "", "Unavailable"),
        ("5", "(SNAKE_STRING)", "NOT_FOUND"),
        ("5", "(NUMBER)", "5"),
        ("99", "", "99"),
        ("x", "", "-"),
    ],
)
def test_grpc_status(status: str, form: str, expected: str) -> None:
    info = StreamInfo(
        request_headers=HeaderMap([("content-type", "application/grpc")]),
        response_trailers=HeaderMap([("grpc-status", status)]),
    )
    assert fill(f"%GRPC_STATUS{form}%", info) == expected


def test_original_path() -> None:
    info = StreamInfo(request_headers=HeaderMap([(":path", "/new"), ("x-envoy-original-path", "/old?q=1")]))
    assert fill("%PATH% %PATH(WQ:PATH)% %PATH(NQ:ORIG)% %QUERY_PARAMS%", info) == "/old?q=1 /new /old q=1"


def test_omitted() -> None:
    template = Template("a%REQ(x-none)%b%REQ(x-b)%", omit_empty=True)
    assert template.fill(exchange(), MOMENT) == "ababcdef"


def test_bytes_survive() -> None:
    assert fill("%REQ(x-raw)%").encode("utf-8", "surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("100%", "'%' is no operator such as %REQ(NAME)%; a % is written %%"),
        ("%NO_SUCH%", "there is no operator %NO_SUCH%"),
        ("%REQ%", "a header is named like this: (x-name) or (x-name?x-other)"),
        ("%REQ(a b)%", "a header is named like this: (x-name) or (x-name?x-other)"),
        ("%PROTOCOL(x)%", "(x) is not wanted here"),
        ("%PATH(X)%", "PATH takes WQ or NQ, then PATH, ORIG or ORIG_OR_PATH: %PATH(NQ:PATH)%"),
        (
            "%METADATA(NO:a)%",
            "METADATA takes one of DYNAMIC, CLUSTER, ROUTE, UPSTREAM_HOST, LISTENER, LISTENER_FILTER_CHAIN, "
            "VIRTUAL_HOST first: %METADATA(ROUTE:name:key)%",
        ),
        ("%DYNAMIC_METADATA%", "metadata is named like this: (namespace:key:key)"),
        ("%FILTER_STATE%", "FILTER_STATE takes a key, and PLAIN or TYPED: %FILTER_STATE(key:PLAIN)%"),
        ("%GRPC_STATUS(x)%", "GRPC_STATUS takes CAMEL_STRING, SNAKE_STRING or NUMBER"),
        ("%ENVIRONMENT%", "ENVIRONMENT needs a name: %ENVIRONMENT(NAME)%"),
        (
            "%COALESCE(x)%",
            'COALESCE takes JSON: {"operators": [{"command": "REQ", "param": "x-name"}, "PROTOCOL"]}',
        ),
        ('%COALESCE({"operators": ["NOPE"]})%', "there is no operator %NOPE%"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        Template(text)
    assert caught.value.message == message


def test_what_can_never_be_said_is_named() -> None:
    assert Template("%TRACE_ID% %PROTOCOL% %CEL(request.path)%").unavailable == ["TRACE_ID", "CEL"]
    assert JsonTemplate({"a": ["%SPAN_ID%"]}).unavailable == ["SPAN_ID"]
    assert not UNAVAILABLE.keys() & OPERATORS.keys()


def test_json() -> None:
    structure = {
        "code": "%RESPONSE_CODE%",
        "text": "x%RESPONSE_CODE%y",
        "none": "%REQ(x-none)%",
        "nested": {"list": ["%PROTOCOL%", "%BYTES_SENT%"], "meta": "%METADATA(ROUTE:a)%"},
        "literal": "hello",
        "number": 5.0,
        "flag": True,
        "null": None,
        "raw": "%REQ(x-raw)%",
        "é": "%REQ(x-a)%",
    }
    line = JsonTemplate(structure).line(exchange(), MOMENT)
    assert json.loads(line) == {
        "code": 200,
        "text": "x200y",
        "none": None,
        "nested": {"list": ["HTTP/1.1", 2], "meta": {"b": "c", "m": {"x": True}, "n": 5}},
        "literal": "hello",
        "number": 5,
        "flag": True,
        "null": None,
        "raw": "ÿþ",
        "é": 'say "hi"',
    }
    assert line.startswith('{"code":200,"flag":true,')  # compact, keys sorted, as Envoy's


def test_json_without_empty_values() -> None:
    structure = {"a": "%REQ(x-none)%", "b": "x%REQ(x-none)%", "d": {"e": "%REQ(x-none)%"}, "f": "%PROTOCOL%"}
    line = JsonTemplate(structure, omit_empty=True).line(exchange(), MOMENT)
    assert line == '{"b":"x","f":"HTTP/1.1"}'
    assert JsonTemplate({"a": "%REQ(x-none)%"}, omit_empty=True).line(exchange(), MOMENT) == "{}"


def test_json_refuses_what_it_has_not() -> None:
    with pytest.raises(FormatError, match="is nothing JSON has"):
        JsonTemplate({"a": {1, 2}})
