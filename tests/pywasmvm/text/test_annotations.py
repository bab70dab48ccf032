"""Annotations: names for people, custom sections in their place, branch hints; all others are comments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.binary import custom
from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.comparison import same
from pywasmvm.errors import InvalidError, MalformedError
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.annotations import BRANCH_HINT, SECTION_WORDS
from pywasmvm.text.parser import parse_module
from tests.support.wat import assembled


def customs(module: ModuleSyntax) -> list[tuple[str, bytes]]:
    return [(section.name, module.source[section.start : section.end]) for section in module.customs]


def refused(text: str) -> str:
    """The message that a text is refused with; the error says where."""
    with pytest.raises(MalformedError) as caught:
        parse_module(text)
    assert caught.value.line is not None
    return caught.value.message


TOKENS = (
    '(module $m (func $f (export "f") (param i32) (local i64) (block (br 0))) (memory 1)'
    '(data (i32.const 0) "x"))'
)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.sampled_from(["(@a)", '(@a ) (@b "(" ;;\n)', '(@"c d" ((1a)) $)']))
    )
)
def test_unknown_ones_may_stand_anywhere(places: list[tuple[int, str]]) -> None:
    words = TOKENS.replace("(", " ( ").replace(")", " ) ").split()
    for place, annotation in sorted(places, reverse=True):
        words.insert(place, annotation)
    assert same(parse_module(" ".join(words)), parse_module(TOKENS)) is None


# -- names ---------------------------------------------------------------------------------------------------


def test_names() -> None:
    names = custom.names(
        parse_module(
            """
            (module $m (@name "the module")
              (type $t (@name "the type") (struct (field $x (@name "the field") i32) (field (@name "f") i32)))
              (import "" "" (func $i (@name "imported") (param (@name "the param") i32)))
              (func $f (@name "") (param $p (@name "p") i32) (local (@name "l") i64)
                (block $b (@name "outer") (if (@name "inner") (nop) (then))))
              (table $tab (@name "tab") 1 funcref) (memory (@name "mem") 1)
              (global (@name "glob") i32 i32.const 0)
              (tag (@name "tag")) (elem (@name "elem") func) (data (@name "data") ""))
            """
        )
    )
    assert names == custom.Names(
        "the module",
        {0: "imported", 1: ""},
        {0: {0: "the param"}, 1: {0: "p", 1: "l"}},
        {1: {0: "outer", 1: "inner"}},
        {0: "the type"},
        {0: "tab"},
        {0: "mem"},
        {0: "glob"},
        {0: "elem"},
        {0: "data"},
        {0: {0: "the field", 1: "f"}},
        {0: "tag"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('(module (@name "a") (@name "b"))', "@name annotation: multiple module"),
        ('(func (@name "a") (@name "b"))', "@name annotation: multiple names"),
        ('(module (func) (@name "a"))', "misplaced @name annotation"),
        ('(func (@name "a") $f)', "misplaced @name annotation"),
        ('(func (nop) (@name "a"))', "misplaced @name annotation"),
        ('(start 0 (@name "a"))', "misplaced @name annotation"),
        ("(module (@name))", "@name annotation: unexpected token"),
        ("(module (@name a))", "@name annotation: unexpected token"),
        ('(module (@name "a" "b"))', "@name annotation: unexpected token"),
        (r'(module (@name "\ff"))', "@name annotation: malformed UTF-8"),
    ],
)
def test_misplaced_names(text: str, message: str) -> None:
    assert refused(text).startswith(message)


# -- custom sections -----------------------------------------------------------------------------------------


def test_contents() -> None:
    module = parse_module(r'(@custom "a") (@custom "b" "x" "\00" "y") (@custom "")')
    assert customs(module) == [("a", b""), ("b", b"x\0y"), ("", b"")]


FULL = (
    '(type (func)) (import "" "" (func)) (func data.drop 0) (table 1 funcref) (memory 1) (tag)'
    '(global i32 i32.const 0) (export "" (func 0)) (start 0) (elem func) (data "")'
)


@pytest.mark.parametrize("word", SECTION_WORDS)
def test_places(word: str) -> None:
    """Just before and just behind a section, in the order of the text where several stand there."""
    text = FULL + "".join(
        f'(@custom "{n}{where}" ({where} {word}))' for n in "12" for where in ("before", "after")
    )
    module = parse_module(text)
    sections = decode(encode(module)).sections
    names = [section.name for section in sections]
    at = next(place for place, section in enumerate(sections) if section.id == SECTION_WORDS[word])
    assert names[at - 2 : at] == ["1before", "2before"]
    assert names[at + 1 : at + 3] == ["1after", "2after"]
    assert [section.name for section in module.customs] == ["1before", "2before", "1after", "2after"]


def test_first_and_last() -> None:
    text = (
        FULL
        + '(@custom "l" (after last)) (@custom "f" (before first)) (@custom "d") (@custom "a" (after data))'
    )
    names = [section.name for section in decode(encode(parse_module(text))).sections]
    assert names[0] == "f"
    assert names[-4:] == ["data", "a", "l", "d"]


def test_a_place_survives_even_if_the_section_is_not_there() -> None:
    text = (
        '(@custom "x" (after global)) (memory 1) (@custom "y" (before global)) (type (func))'
        '(@custom "n" (after type))'
    )
    names = [section.name for section in decode(encode(parse_module(text))).sections]
    assert names == ["type", "n", "memory", "y", "x"]


def test_another_tool_puts_them_at_the_same_places() -> None:
    text = "".join(
        f'(@custom "{word} {where}" ({where} {word}) "x")'
        for word in SECTION_WORDS
        for where in ("after", "before")
        if word not in ("tag", "datacount")
    )
    theirs = decode(assembled(f"(module {FULL} {text})"))
    ours = decode(encode(parse_module(FULL + text)))
    assert [section.name for section in ours.sections] == [section.name for section in theirs.sections]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(@custom)", "@custom annotation: missing section name"),
        ("(@custom a)", "@custom annotation: missing section name"),
        (r'(@custom "\ff")', "@custom annotation: malformed UTF-8 encoding"),
        ('(@custom "a" b)', "@custom annotation: unexpected token"),
        ('(@custom "a" "b" 1)', "@custom annotation: unexpected token"),
        ('(@custom "a" "b" (after last))', "@custom annotation: unexpected token"),
        ('(@custom "a" ())', "@custom annotation: malformed placement"),
        ('(@custom "a" (behind last))', "@custom annotation: malformed placement"),
        ('(@custom "a" (after))', "@custom annotation: malformed section kind"),
        ('(@custom "a" (after first))', "@custom annotation: malformed section kind"),
        ('(@custom "a" (before last))', "@custom annotation: malformed section kind"),
        ('(@custom "a" (after "type"))', "@custom annotation: malformed section kind"),
        ('(@custom "a" (after type func))', "@custom annotation: malformed section kind"),
        ('(func (@custom "a"))', "misplaced @custom annotation"),
        ('(func nop (@custom "a") nop)', "misplaced @custom annotation"),
        ('(rec (@custom "a"))', "misplaced @custom annotation"),
    ],
)
def test_what_is_no_custom_section(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_a_name_section_written_out_replaces_the_one_of_the_identifiers() -> None:
    module = parse_module('(func $f) (@custom "name" "\\01\\04\\01\\00\\01g")')
    assert len(module.customs) == 1
    assert custom.names(module).functions == {0: "g"}


# -- branch hints --------------------------------------------------------------------------------------------


def test_hints() -> None:
    """Function 1: byte 9 is the `if` behind its condition, byte 14 the `br_if`; locals take three bytes."""
    module = parse_module(
        f"""
        (import "" "" (func))
        (func (local i32 i32)
          (block
            (@{BRANCH_HINT} "\\01") (if (i32.const 1) (then (nop)))
            i32.const 1 (@{BRANCH_HINT} "\\00") br_if 0))
        """
    )
    assert customs(module) == [(BRANCH_HINT, bytes([1, 1, 2, 7, 1, 1, 13, 1, 0]))]
    names = [section.name for section in decode(encode(module)).sections]
    assert names.index(BRANCH_HINT) < names.index("code")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('(@{0} "\\01") (func)', "@{0} annotation: not in a function"),
        ('(func (@{0} "\\01"))', "@{0} annotation: not in a function"),
        ('(global i32 (@{0} "\\01") (i32.const 1))', "@{0} annotation: not in a function"),
        ('(func (@{0} "\\01") (@{0} "\\01") br_if 0)', "@{0} annotation: duplicate annotation"),
        ('(func (@{0} "\\02") br_if 0)', "@{0} annotation: a hint is"),
        ("(func (@{0}) br_if 0)", "@{0} annotation: unexpected token"),
        ("(func (@{0} 1) br_if 0)", "@{0} annotation: unexpected token"),
    ],
)
def test_what_is_no_hint(text: str, message: str) -> None:
    assert refused(text.format(BRANCH_HINT)).startswith(message.format(BRANCH_HINT))


@pytest.mark.parametrize("target", ["nop", "(nop)", "block end", "(loop)", "br 0", "(br_table 0)", "end"])
def test_only_conditional_branches_have_hints(target: str) -> None:
    with pytest.raises(InvalidError, match="invalid target") as caught:
        parse_module(f'(func block nop (@{BRANCH_HINT} "\\01") {target} end)')
    assert (caught.value.line, caught.value.instruction) == (1, target.strip("()").split()[0])
