"""Who the client is, and what upstreams are told. Expectations measured on Envoy 1.40."""

from __future__ import annotations

import pytest

from abi.proxy_wasm.header_map import HeaderMap
from abi.proxy_wasm.stream_info import StreamInfo
from pywasmproxy.config.model_manager import Forwarding
from pywasmproxy.sansio.arrival import Arrival, Self
from pywasmproxy.sansio.headers import prepare_request

OURS = Self(address="192.0.2.2", service_cluster="front", service_node="node-1")
PSEUDO = [(":authority", "h.test"), (":path", "/"), (":method", "GET")]
INSIDE = ("10.0.0.0/8",)


class Seen:
    """A request as the first filter sees it."""

    def __init__(self, config: Forwarding, *fields: tuple[str, str], peer: str = "127.0.0.1") -> None:
        self.headers = HeaderMap([*PSEUDO, *fields])
        where = f"[{peer}]:5000" if ":" in peer else f"{peer}:5000"
        self.info = StreamInfo(source_address=where, destination_address="127.0.0.1:8080")
        prepare_request(self.headers, self.info, arrival=Arrival(config, OURS), request_id=lambda: b"made")

    def __getitem__(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def names(self) -> list[str]:
        return [name.decode() for name, _ in self.headers.lines if name[:1] != b":"]


def xff(value: str) -> tuple[str, str]:
    return ("x-forwarded-for", value)


def test_by_default_who_is_in_front_is_believed() -> None:
    seen = Seen(Forwarding(), xff("1.2.3.4, 5.6.7.8"), ("x-forwarded-proto", "https"))
    assert seen["x-forwarded-for"] == "1.2.3.4, 5.6.7.8"
    assert (seen[":scheme"], seen["x-forwarded-proto"]) == ("https", "https")
    assert seen.info.source_address == "5.6.7.8:0"
    assert seen.info.direct_source_address == "127.0.0.1:5000"


@pytest.mark.parametrize("value", ["nobody", "1.2.3.4:80", "1.2.3.4,"])
def test_what_is_no_address_is_not_believed(value: str) -> None:
    seen = Seen(Forwarding(), xff(value))
    assert seen.info.source_address == "127.0.0.1:5000"
    assert seen.info.direct_source_address is None


def test_without_fields_the_peer_is_the_client() -> None:
    seen = Seen(Forwarding())
    assert seen.names == ["x-forwarded-proto", "x-request-id"]
    assert seen.info.source_address == "127.0.0.1:5000"


def test_addresses_of_the_new_kind() -> None:
    seen = Seen(Forwarding(use_remote_address=True), peer="2001:db8::1")
    assert seen["x-forwarded-for"] == "2001:db8::1"
    assert Seen(Forwarding(), xff("2001:db8::2")).info.source_address == "[2001:db8::2]:0"


@pytest.mark.parametrize(
    ("hops", "value", "client"),
    [
        (1, "1.2.3.4", None),
        (1, "1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (1, "bad, 5.6.7.8, 10.0.0.1", "5.6.7.8"),
        (2, "1.2.3.4, 5.6.7.8, 10.0.0.1", "1.2.3.4"),
    ],
)
def test_trusted_proxies_in_front(hops: int, value: str, client: str | None) -> None:
    seen = Seen(Forwarding(trusted_hops=hops), xff(value))
    assert seen.info.source_address == (f"{client}:0" if client else "127.0.0.1:5000")


def test_the_edge() -> None:
    seen = Seen(Forwarding(use_remote_address=True), peer="9.9.9.9")
    assert seen.names == ["x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address", "x-request-id"]
    assert (seen["x-forwarded-for"], seen["x-envoy-external-address"]) == ("9.9.9.9", "9.9.9.9")


def test_the_edge_believes_nobody() -> None:
    fields = [
        xff("1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "mine"),
        ("x-envoy-external-address", "8.8.8.8"),
        ("x-envoy-internal", "true"),
        ("x-envoy-original-path", "/o"),
        ("x-envoy-downstream-service-node", "n"),
    ]
    seen = Seen(Forwarding(use_remote_address=True), *fields)
    assert seen["x-forwarded-for"] == "1.2.3.4,192.0.2.2"  # a peer on loopback is this machine
    assert (seen[":scheme"], seen["x-forwarded-proto"]) == ("http", "http")
    assert (seen["x-request-id"], seen["x-envoy-external-address"]) == ("made", "127.0.0.1")
    assert not {"x-envoy-internal", "x-envoy-original-path", "x-envoy-downstream-service-node"} & set(
        seen.names
    )


def test_an_edge_behind_others() -> None:
    config = Forwarding(use_remote_address=True, trusted_hops=1, append_port=True)
    seen = Seen(config, xff("1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "99"))
    assert seen["x-forwarded-for"] == "1.2.3.4,192.0.2.2"
    assert seen["x-envoy-external-address"] == "1.2.3.4"
    assert (seen["x-forwarded-proto"], seen["x-forwarded-port"]) == ("https", "99")
    assert seen.info.source_address == "1.2.3.4:0"
    bare = Seen(config)
    assert (bare["x-forwarded-proto"], bare["x-forwarded-port"]) == ("http", "8080")


def test_ids_of_clients_may_stay() -> None:
    config = Forwarding(use_remote_address=True, preserve_external_request_id=True, skip_append=True)
    seen = Seen(config, ("x-request-id", "mine"))
    assert (seen["x-request-id"], seen["x-forwarded-for"]) == ("mine", None)


def test_clients_inside_may_tell_envoys_what_to_do() -> None:
    field = ("x-envoy-retry-on", "5xx")
    edge = Forwarding(use_remote_address=True, internal_ranges=INSIDE)
    inside = Seen(edge, field, peer="10.1.1.1")
    assert (inside["x-envoy-internal"], inside["x-envoy-retry-on"]) == ("true", "5xx")
    assert inside["x-envoy-external-address"] is None
    outside = Seen(edge, field, peer="11.1.1.1")
    assert (outside["x-envoy-internal"], outside["x-envoy-retry-on"]) == (None, None)
    behind = Forwarding(internal_ranges=INSIDE)
    assert Seen(behind, field, xff("10.1.1.1"))["x-envoy-retry-on"] == "5xx"
    assert Seen(behind, field, xff("1.1.1.1, 10.1.1.1"))["x-envoy-retry-on"] is None
    assert Seen(behind, field)["x-envoy-retry-on"] is None


def test_we_name_ourselves() -> None:
    config = Forwarding(add_user_agent=True, via="front")
    seen = Seen(config, ("via", "1.1 other"))
    assert (seen["user-agent"], seen["via"]) == ("front", "1.1 other, front")
    assert seen["x-envoy-downstream-service-cluster"] == "front"
    assert seen["x-envoy-downstream-service-node"] == "node-1"
    assert Seen(config, ("user-agent", "ua"))["user-agent"] == "ua"


def test_a_scheme_for_everybody() -> None:
    seen = Seen(Forwarding(scheme="https"), ("x-forwarded-proto", "http"))
    assert (seen[":scheme"], seen["x-forwarded-proto"]) == ("https", "https")


def test_fields_only_for_clients_inside() -> None:
    headers = HeaderMap([*PSEUDO, ("x-secret", "1")])
    arrival = Arrival(Forwarding())
    prepare_request(headers, StreamInfo(), arrival=arrival, request_id=None, hidden=frozenset((b"x-secret",)))
    assert headers.first("x-secret") is None
