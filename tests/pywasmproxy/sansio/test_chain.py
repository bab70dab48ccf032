"""A chain knows its filters and opens exchanges."""

from __future__ import annotations

from pywasmproxy.sansio.chain import FilterChain
from pywasmproxy.sansio.native import NativeFilter


def test_the_source_is_known_to_filters() -> None:
    chain = FilterChain([NativeFilter])
    assert chain.open(source=("203.0.113.9", 4711)).info.source_address == "203.0.113.9:4711"
    assert chain.open(source=("::1", 80)).info.source_address == "[::1]:80"
    assert chain.open().info.source_address is None
