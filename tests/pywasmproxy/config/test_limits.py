"""Our own limits: human-written quantities, overrides, suggestions, `node.metadata.pywasmvm`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config.limits import LimitError, Limits, count, duration, override, pages, share
from tests.support.bootstrap import read, refused


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2),
        ("1.5 s", 1.5),
        ("250us", 0.00025),
        ("3m", 180),
        ("1h", 3600),
        (2, 2),
        (0.25, 0.25),
        ("4", 4),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("64MiB", 1024),
        ("64 mib", 1024),
        ("4GiB", 65536),
        ("65536", None),
        (16, 16),
        ("16", 16),
        ("1MB", 15),
        ("100KiB", 1),
    ],
)
def test_sizes_are_pages(written: object, number: int | None) -> None:
    assert pages(written) == (65536 if number is None else number)


@pytest.mark.parametrize(
    ("written", "number"), [("10M", 10_000_000), ("5k", 5000), (7, 7), ("1_000", 1000), ("2G", 2 * 10**9)]
)
def test_counts(written: object, number: int) -> None:
    assert count(written) == number


@pytest.mark.parametrize(
    ("written", "part"), [("75%", 0.75), (0.5, 0.5), ("0.5", 0.5), (1, 1.0), ("100%", 1.0)]
)
def test_shares(written: object, part: float) -> None:
    assert share(written) == part


@pytest.mark.parametrize("read_quantity", [duration, pages, count, share])
@pytest.mark.parametrize(
    "written", ["", "x", "-1", 0, -1, True, None, [], "1 parsec", "1e3", "0s", "%", "1 2"]
)
def test_nonsense_is_refused(read_quantity: object, written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_quantity(written)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("read_quantity", "written"),
    [
        (pages, "5GiB"),
        (pages, "1KiB"),
        (pages, 1.5),
        (count, 1.5),
        (count, 1 << 63),
        (share, 1.01),
        (share, "101%"),
        (duration, 1e13),
    ],
)
def test_out_of_range_is_refused(read_quantity: object, written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_quantity(written)  # type: ignore[operator]


@given(st.integers(1, 10**9))
def test_milliseconds_come_back(number: int) -> None:
    assert round(duration(f"{number}ms") * 1000) == number


@given(st.integers(1, 65536))
def test_kibibytes_are_sixty_fourths_of_pages(number: int) -> None:
    assert pages(f"{number * 64}KiB") == number == pages(number)


def test_the_table_is_complete() -> None:
    names = [field.name for field in dataclasses.fields(Limits)]
    described = Limits().describe()
    assert [name for name, _, _ in described] == names
    assert all(meaning for _, _, meaning in described)


def test_defaults_are_safe() -> None:
    limits = Limits()
    assert limits.callback_time is not None
    assert limits.callback_time <= 1.0
    assert limits.memory_pages is not None
    assert limits.call_depth is not None


def test_override_replaces_one_value() -> None:
    limits = override(Limits(), "callback_time", "200ms")
    assert limits == dataclasses.replace(Limits(), callback_time=0.2)
    assert override(limits, "memory_pages", "8MiB").memory_pages == 128
    for unlimited in (None, "unlimited", "None", " off "):
        assert override(limits, "callback_time", unlimited).callback_time is None


def test_an_unknown_limit_gets_a_suggestion() -> None:
    with pytest.raises(LimitError) as caught:
        override(Limits(), "calback_time", "1s")
    assert caught.value.suggestion == "callback_time"
    assert "known: callback_time, start_time" in caught.value.message
    with pytest.raises(LimitError) as caught:
        override(Limits(), "xyzzy", 1)
    assert caught.value.suggestion is None


def test_a_bad_value_names_the_limit() -> None:
    with pytest.raises(LimitError, match=r"memory_pages: expected a size such as 64MiB .*, found 'big'"):
        override(Limits(), "memory_pages", "big")


def test_node_metadata_changes_limits_and_stays_visible_to_filters() -> None:
    found = read(
        node="node: {metadata: {k: v, pywasmvm: "
        "{callback_time: 250ms, memory_pages: 32MiB, callback_fuel: 10M}}}"
    )
    assert found.limits == dataclasses.replace(
        Limits(), callback_time=0.25, memory_pages=512, callback_fuel=10_000_000
    )
    assert found.node.metadata["k"] == "v"
    assert not found.warnings


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("memory", "memory"),
        ("off", "off"),
        ("false", "off"),
        ("''", "off"),
        ("/var/x", "/var/x"),
        ("x/y", "x/y"),
    ],
)
def test_node_metadata_says_where_snapshots_are(written: str, meant: str) -> None:
    found = read(node=f"node: {{metadata: {{pywasmvm: {{snapshots: {written}, call_depth: 5}}}}}}")
    assert found.snapshots in (meant, str(Path(meant)))
    assert found.limits.call_depth == 5
    assert read().snapshots == ""
    error = refused(node="node: {metadata: {pywasmvm: {snapshot: memory}}}")
    assert error.suggestion == "snapshots"
    assert (
        refused(node="node: {metadata: {pywasmvm: {snapshots: [a]}}}").path
        == "node.metadata.pywasmvm.snapshots"
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("memory", "memory"),
        ("''", ""),
        ("sqlite:/var/x", "sqlite:/var/x"),
        ("sqlite:x", "sqlite:x"),
        ("redis://a:1/2", "redis://a:1/2"),
    ],
)
def test_node_metadata_says_where_shared_data_is(written: str, meant: str) -> None:
    assert read(node=f"node: {{metadata: {{pywasmvm: {{store: {written}}}}}}}").store == meant
    assert read().store == ""


def test_stores_that_are_none() -> None:
    error = refused(node="node: {metadata: {pywasmvm: {store: 'postgres://x'}}}")
    assert error.path == "node.metadata.pywasmvm.store"
    assert "a store is memory, sqlite:PATH, or redis://HOST:PORT/DB, not 'postgres://x'" in str(error)


def test_without_node_metadata_the_defaults_hold() -> None:
    assert read().limits == Limits()
    assert read(node="node: {id: a}").limits == Limits()
    assert read(node="node: {metadata: {other: 1}}").limits == Limits()
    assert read(node="node: {metadata: {pywasmvm: null}}").limits == Limits()


def test_an_unknown_setting_is_refused_with_place_and_suggestion() -> None:
    error = refused(node="node:\n  metadata:\n    pywasmvm:\n      call_depht: 5")
    assert (error.line, error.path, error.suggestion) == (
        4,
        "node.metadata.pywasmvm.call_depht",
        "call_depth",
    )
    error = refused(node="node: {metadata: {pywasmvm: {struct_configuratoin: json}}}")
    assert error.suggestion == "struct_configuration"


def test_a_bad_setting_is_refused_with_its_place() -> None:
    error = refused(node="node: {metadata: {pywasmvm: {callback_time: fast}}}")
    assert error.message == "callback_time: expected a duration above zero, such as 500ms or 2s, found 'fast'"
    assert error.path == "node.metadata.pywasmvm.callback_time"
    assert "expected a mapping" in refused(node="node: {metadata: {pywasmvm: 1s}}").message
