"""Protobuf writing, compared with wire bytes worked out by hand from the encoding guide and with Envoy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abi.proxy_wasm import protobuf


@pytest.mark.parametrize(("value", "data"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varint(value: int, data: str) -> None:
    assert protobuf.varint(value).hex() == data


@given(st.integers(0, 2**64 - 1))
def test_varint_reads_back(value: int) -> None:
    data = protobuf.varint(value)
    assert sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data)) == value
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]


@pytest.mark.parametrize(
    ("item", "data"),
    [
        (None, "0800"),
        (True, "2001"),
        (False, "2000"),
        (1, "11000000000000f03f"),
        (1.0, "11000000000000f03f"),
        ("a", "1a0161"),
        ({"k": "v"}, "2a0a0a080a016b12031a0176"),
        (["a"], "32050a031a0161"),
    ],
)
def test_values(item: object, data: str) -> None:
    assert protobuf.value(item).hex() == data


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object is not a JSON value"):
        protobuf.value(object())


def test_a_struct_as_envoy_sends_it() -> None:
    assert protobuf.struct_message({"a": 1}).hex() == "0a0e0a0161120911000000000000f03f"


def test_node() -> None:
    node = {"id": "n", "cluster": "c", "metadata": {"k": "v"}, "locality": {"zone": "z"}}
    assert protobuf.node_message(node).hex() == "0a016e1201631a0a0a080a016b12031a01762203" + "12017a"
    assert protobuf.node_message({}) == b""


def test_locality_and_metadata() -> None:
    locality = {"region": "r", "zone": "z", "sub_zone": "s"}
    assert protobuf.locality_message(locality).hex() == "0a017212017a1a0173"
    assert protobuf.metadata_message({"ns": {}, "broken": 1}).hex() == "0a060a026e731200"
