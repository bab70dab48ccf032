"""The language of the field tables: spellings, unknown and ignored fields, scalar kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config import schema
from pywasmproxy.config.document import parse
from pywasmproxy.config.errors import ConfigError
from pywasmproxy.config.schema import Context, Cursor, Message


def cursor(text: str, path: str = "top") -> Cursor:
    return Cursor(parse(text, "f.yaml"), path, Context("f.yaml", Path(), {}))


def refused(kind: schema.Kind, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        kind(cursor(text))
    return caught.value


THING = Message(
    "example.v1.Thing",
    {"name": schema.text, "max_size": schema.UINT32, "left": schema.boolean, "right": schema.boolean},
    ignored="old_field colour",
    notes={"shape": "round is all we can do"},
    harmless={"colour": ("red",)},
    one_of=("left right",),
    required="name",
)


def read(text: str) -> tuple[dict[str, Any], list[str]]:
    place = cursor(text)
    return THING.read(place), [str(warning) for warning in place.context.warnings]


@pytest.mark.parametrize("spelling", ["max_size", "maxSize"])
def test_both_spellings_are_read(spelling: str) -> None:
    assert read(f"{{name: a, {spelling}: 5}}") == ({"name": "a", "max_size": 5}, [])


def test_one_field_in_two_spellings_is_refused() -> None:
    error = refused(THING.read, "name: a\nmax_size: 1\nmaxSize: 2")
    assert (error.line, error.path, error.message) == (
        3,
        "top.maxSize",
        "'maxSize' and 'max_size' are the same field",
    )


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("maxsize", "max_size"),
        ("MaxSize", "maxSize"),
        ("maxSise", "maxSize"),
        ("max_sise", "max_size"),
        ("nmae", "name"),
        ("colur", "colour"),
        ("zzzzz", None),
    ],
)
def test_an_unknown_field_is_refused_with_place_and_suggestion(key: str, suggestion: str | None) -> None:
    error = refused(THING.read, f"name: a\n{key}: 1")
    assert error.file == "f.yaml"
    assert error.line == 2
    assert error.path == f"top.{key}"
    assert error.message == f"unknown field {key!r} in Thing"
    assert error.suggestion == suggestion
    hint = f" (did you mean {suggestion!r}?)" if suggestion else ""
    assert str(error) == f"f.yaml:2: top.{key}: unknown field {key!r} in Thing{hint}"


def test_a_known_but_unsupported_field_warns_once_and_is_not_looked_into() -> None:
    values, warnings = read("name: a\noldField: {whatever: [1, 2]}\nshape: square\n")
    assert values == {"name": "a"}
    assert warnings == [
        "f.yaml:2: top.oldField: not supported yet, ignored",
        "f.yaml:3: top.shape: round is all we can do",
    ]


def test_a_harmless_value_does_not_warn() -> None:
    assert read("{name: a, colour: red}")[1] == []
    assert len(read("{name: a, colour: blue}")[1]) == 1


def test_null_means_unset() -> None:
    assert read("{name: a, max_size: null, old_field: ~}") == ({"name": "a"}, [])
    assert refused(THING.read, "{name: null}").message == "Thing needs 'name'"


def test_required_and_exclusive_fields() -> None:
    assert refused(THING.read, "{}").message == "Thing needs 'name'"
    assert refused(THING.read, '{name: ""}').message == "Thing needs 'name'"
    assert refused(THING.read, "{name: a, left: true, right: false}").message == (
        "only one of left and right can be set"
    )


@pytest.mark.parametrize(
    ("text", "found"), [("[1]", "a list"), ("x", "'x'"), ("5", "the number 5"), ("~", "nothing")]
)
def test_what_is_no_mapping_is_refused(text: str, found: str) -> None:
    assert refused(THING.read, text).message == f"expected a mapping, found {found}"


def test_long_text_is_cut_in_messages() -> None:
    assert len(refused(THING.read, "x" * 500).message) < 100


@pytest.mark.parametrize(
    ("written", "value"),
    [("abc", "abc"), ("'5'", "5"), ("1.5", "1.5"), ("''", ""), ("4294967296", "4294967296")],
)
def test_text(written: str, value: str) -> None:
    assert schema.text(cursor(written)) == value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("5", "expected text, found the number 5; put it in quotes"),
        ("yes", "expected text, found the boolean yes; put it in quotes"),
        ("~", "expected text, found nothing"),
        ("{}", "expected text, found a mapping"),
    ],
)
def test_not_text(written: str, message: str) -> None:
    assert refused(schema.text, written).message == message


@pytest.mark.parametrize(
    ("written", "value"), [("true", True), ("no", False), ("'true'", True), ('"false"', False)]
)
def test_boolean(written: str, value: bool) -> None:
    assert schema.boolean(cursor(written)) is value


@pytest.mark.parametrize("written", ["1", "maybe", "'yes'", "[]", "~"])
def test_not_boolean(written: str) -> None:
    assert refused(schema.boolean, written).message.startswith("expected true or false, found")


@pytest.mark.parametrize(
    ("written", "value"), [("80", 80), ("'80'", 80), ("80.0", 80), ("0x50", 80), ("0", 0)]
)
def test_integer(written: str, value: int) -> None:
    found = schema.integer(0, 100)(cursor(written))
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("written", ["80.5", "x", "true", "~", "[1]", "{}", "'1 2'", "010"])
def test_not_integer(written: str) -> None:
    assert refused(schema.integer(0, 100), written).message.startswith("expected a whole number, found")


@pytest.mark.parametrize("written", ["-1", "101"])
def test_integer_out_of_range(written: str) -> None:
    assert refused(schema.integer(0, 100), written).message == f"{written} is not between 0 and 100"


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("1s", (1, 0)),
        ("1.00s", (1, 0)),
        ("0.25s", (0, 250_000_000)),
        ("-1.5s", (-1, -500_000_000)),
        ("0s", (0, 0)),
        ("'3s'", (3, 0)),
        ("0.000000001s", (0, 1)),
        ("315576000000s", (315_576_000_000, 0)),
    ],
)
def test_duration_parts(written: str, parts: tuple[int, int]) -> None:
    assert schema.duration_parts(cursor(written)) == parts


@pytest.mark.parametrize(
    ("written", "suggestion"),
    [
        ("250ms", "0.25s"),
        ("5", "5s"),
        ("2m", "120s"),
        ("1h", "3600s"),
        ("10us", "0.00001s"),
        ("1.5", "1.5s"),
        ("5 s", "5s"),
        ("soon", None),
        ("+1s", None),
        (".5s", None),
        ("1.s", None),
        ("01s", "1s"),
        ("1.0123456789s", None),
        ("1S", None),
        ("[1s]", None),
        ("~", None),
        ("5 parsecs", None),
    ],
)
def test_not_duration(written: str, suggestion: str | None) -> None:
    error = refused(schema.duration, written)
    assert error.message.startswith("expected a duration in seconds such as 1.5s, found")
    assert error.suggestion == suggestion


def test_duration_bounds() -> None:
    assert refused(schema.duration, "-1s").message == "a duration cannot be negative here"
    assert refused(schema.duration, "-0.1s").message == "a duration cannot be negative here"
    assert refused(schema.duration, "315576000001s").message == "315576000001s is too long for a duration"
    assert refused(schema.positive_duration, "0s").message == "a duration above zero is needed here"
    assert schema.positive_duration(cursor("0.5s")) == 0.5
    assert schema.timeout(cursor("0s")) is None
    assert schema.timeout(cursor("2s")) == 2


@given(st.integers(-315_576_000_000, 315_576_000_000), st.integers(0, 999_999_999))
def test_durations_come_back(seconds: int, nanos: int) -> None:
    written = f"{seconds}.{nanos:09}s"
    sign = -1 if seconds < 0 else 1
    assert schema.duration_parts(cursor(written)) == (seconds, sign * nanos)


COLOUR = schema.enum("colour", "RED DARK_GREEN")


@pytest.mark.parametrize("written", ["DARK_GREEN", "dark_green", "Dark_Green", "1"])
def test_enum(written: str) -> None:
    assert COLOUR(cursor(written)) == "DARK_GREEN"


def test_not_enum() -> None:
    error = refused(COLOUR, "dark_gren")
    assert error.message == "'dark_gren' is no colour; known: RED, DARK_GREEN"
    assert error.suggestion == "DARK_GREEN"
    assert refused(COLOUR, "2").message == "'2' is no colour; known: RED, DARK_GREEN"
    assert refused(COLOUR, "{}").message == "expected one of RED, DARK_GREEN, found a mapping"


def test_lists_and_maps_carry_their_paths() -> None:
    kind = schema.mapping(schema.repeated(schema.text))
    assert kind(cursor("{a: [v, w], b: []}")) == {"a": ("v", "w"), "b": ()}
    error = refused(kind, "a:\n- x\n- 5")
    assert (error.path, error.line) == ("top.a[1]", 3)
    assert refused(kind, "a b: [true]").path == "top.['a b'][0]"
    assert refused(kind, "a: 5").path == "top.a[0]"


@pytest.mark.parametrize(
    ("written", "found"), [("x", ("x",)), ("[x]", ("x",)), ("[]", ()), ("[x, z]", ("x", "z"))]
)
def test_one_thing_stands_for_a_list_of_one(written: str, found: tuple[str, ...]) -> None:
    assert schema.repeated(schema.text)(cursor(written)) == found


def test_struct_is_a_free_mapping() -> None:
    assert schema.struct(cursor("{a: [1, {b: null}]}")) == {"a": [1, {"b": None}]}
    assert refused(schema.struct, "[]").message == "expected a mapping, found a list"


def test_camel() -> None:
    assert [schema.camel(name) for name in ("root_id", "name", "http2_protocol_options", "a_1b")] == [
        "rootId",
        "name",
        "http2ProtocolOptions",
        "a1b",
    ]


def test_get_on_something_else_than_a_mapping_finds_nothing() -> None:
    assert cursor("[a]").get("a") is None
