"""Tokens: maximal runs, strings to bytes, comments and annotations anywhere, positions of errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pywasmvm.errors import MalformedError
from pywasmvm.text.lexer import ID, LEFT, RESERVED, RIGHT, STRING, WORD, caret, position, tokenize

#: One token of each kind that may stand alone, as bytes.
TOKENS = [b"(", b")", b"func", b"$x", b'$"a b"', b'"a\\00b"', b"1_0", b"0x1p-3", b",", b'"a""b"', b"offset=4"]
KINDS = [LEFT, RIGHT, WORD, ID, ID, STRING, WORD, WORD, RESERVED, RESERVED, WORD]
SPACES = [
    b" ",
    b"\n",
    b"\t",
    b"\r\n",
    b";; c\n",
    b";;\r",
    b"(; c ;)",
    b"(;(;;);;)",
    b"(@a)",
    b'(@"b c" (x ")") ;; )\n)',
]


@given(
    st.lists(st.tuples(st.sampled_from(range(len(TOKENS))), st.lists(st.sampled_from(SPACES), min_size=1)))
)
def test_tokens_whatever_stands_between(parts: list[tuple[int, list[bytes]]]) -> None:
    source = b" " + b"".join(TOKENS[which] + b" " + b" ".join(spaces) + b" " for which, spaces in parts)
    tokens = tokenize(source)
    assert tokens.kinds == [KINDS[which] for which, _ in parts]
    assert [tokens.text(i) for i in range(len(tokens))] == [TOKENS[which] for which, _ in parts]
    assert len(tokens.annotations) == sum(space.startswith(b"(@") for _, spaces in parts for space in spaces)


@pytest.mark.parametrize(
    "run", [b'"a""b"', b'a"b"', b'"b"a', b"$", b'0$x"y"', b'$"a"b', b'$"a""b"', b'$a"b"']
)
def test_runs_are_maximal(run: bytes) -> None:
    """What touches is one token, and a meaningless one."""
    if run == b"$":
        with pytest.raises(MalformedError, match=r"^empty identifier"):
            tokenize(run)
        return
    assert tokenize(b"(" + run + b")").kinds == [LEFT, RESERVED, RIGHT]


def test_parentheses_separate() -> None:
    assert tokenize(b'(a)("b")($c)').kinds == [LEFT, WORD, RIGHT, LEFT, STRING, RIGHT, LEFT, ID, RIGHT]


@given(st.binary())
def test_strings_hold_any_bytes(data: bytes) -> None:
    escaped = b'"' + b"".join(b"\\%02x" % byte for byte in data) + b'"'
    tokens = tokenize(escaped)
    assert tokens.string(0) == data


@given(st.text())
def test_strings_hold_text(text: str) -> None:
    escaped = "".join(f"\\u{{{ord(c):x}}}" if ord(c) < 32 or c in '"\\\x7f' else c for c in text)
    assert tokenize(f'"{escaped}"'.encode()).string(0) == text.encode()


def test_escapes() -> None:
    assert tokenize(rb'"\t\n\r\"\'\\\41\u{1_F600}z"').string(0) == b"\t\n\r\"'\\A\xf0\x9f\x98\x80z"


def test_identifiers_lose_their_quotes() -> None:
    tokens = tokenize(rb'$fg $"fg" $"\66g" $"a b"')
    assert [tokens.identifier(i) for i in range(4)] == [b"fg", b"fg", b"fg", b"a b"]


@pytest.mark.parametrize(
    ("source", "message", "line", "column"),
    [
        (b'"a', "unclosed string", 1, 1),
        (b'\n  "a\n"', "unclosed string", 2, 3),
        (b'"\\u{110000}"', "malformed UTF-8 encoding", 1, 2),
        (b'"\\u{d800}"', "malformed UTF-8 encoding", 1, 2),
        (b'$"\\ff"', "malformed UTF-8 encoding", 1, 1),
        (b"a (; (; ;)", "unclosed comment", 1, 3),
        (b"(@a (b)", "unclosed annotation", None, None),
        (b"(@)", "empty annotation id", 1, 1),
        (b'(@"")', "empty annotation id", 1, 1),
        (b'x $""', "empty identifier", 1, 3),
        (b"\r\n\x01", "illegal character", 2, 1),
        ("\n\n é".encode(), "illegal character", 3, 2),
        ('"é" é'.encode(), "illegal character", 1, 5),
        (b"\xff", "malformed UTF-8 encoding", 1, 1),
    ],
)
def test_what_is_no_token(source: bytes, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(MalformedError) as caught:
        tokenize(source)
    assert caught.value.message.startswith(message)
    if line is not None:
        assert (caught.value.line, caught.value.column) == (line, column)


def test_positions_count_characters_and_all_line_ends() -> None:
    source = "a\nb\r\nc\rdé$x".encode()
    assert [position(source, source.index(mark)) for mark in (b"a", b"b", b"c", b"d", b"$")] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (4, 3),
    ]


def test_the_caret_stands_below_the_token() -> None:
    source = "(module\n\t(funk é ))".encode()
    line, column = position(source, source.index(b"funk"))
    shown, mark = caret(source, line, column).split("\n")
    assert shown[len(mark) - 1 :].startswith("funk")
    assert mark.strip() == "^"


def test_matching_parentheses() -> None:
    tokens = tokenize(b'(a (b) ")" (; ) ;) (c))(d)')
    assert tokens.close(0) == len(tokens) - 4
    assert tokens.close(2) == 4
    with pytest.raises(MalformedError):
        tokenize(b"(a (b)").close(0)


def test_annotations_nest_and_keep_their_contents() -> None:
    tokens = tokenize(b'a (@x (@y "s") $z) b')
    (found,) = tokens.annotations
    assert (found.id, found.before, found.offset) == (b"x", 1, 2)
    assert found.contents.kinds == [LEFT, WORD, STRING, RIGHT, ID]


def test_what_annotations_hold_need_not_mean_anything() -> None:
    tokens = tokenize(rb"""(@a $ $"" $"\ff" 1x "a""b" , ; {}[] )""")
    assert tokens.annotations[0].contents.kinds[:5] == [RESERVED, RESERVED, RESERVED, WORD, RESERVED]
    with pytest.raises(MalformedError):
        tokenize(rb"""(@a "\q")""")


def test_deep_annotations_and_comments_cost_no_stack() -> None:
    deep = 50_000
    assert tokenize(b"(@a " + b"(" * deep + b")" * deep + b")").kinds == []
    assert tokenize(b"(;" * deep + b";)" * deep).kinds == []
