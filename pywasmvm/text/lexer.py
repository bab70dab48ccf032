"""Source text to tokens (spec: Text Format, Lexical Format).

Tokens stand in columns - kind, start and end byte of each - because scripts have hundreds of thousands of
them. Comments are dropped; annotations are taken out and kept aside, since they may stand wherever a space
may.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pywasmvm.errors import MalformedError

#: Kinds of tokens. A word is a keyword or a number; what is reserved has no meaning anywhere.
LEFT, RIGHT, WORD, ID, STRING, RESERVED = range(6)

_CHARACTER = rb"[0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]"
# Possessive (`++`): a data segment is one string of megabytes, and a way back into it costs 200 bytes.
_IN_STRING = rb'(?:[^"\\\x00-\x1f\x7f]++|\\(?:[nrt\'"\\]|[0-9A-Fa-f]{2}|u\{[0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)*\}))'
_STRING = rb'"' + _IN_STRING + rb'*+"'

_TOKEN = re.compile(
    rb"(?P<space>(?:[ \t\n\r]++|;;[^\n\r]*+)++)"
    rb"|(?P<block>\(;)"
    rb"|(?P<annotation>\(@)"
    rb"|(?P<left>\()"
    rb"|(?P<right>\))"
    rb"|(?P<run>(?:" + _CHARACTER + rb"++|" + _STRING + rb")++)"
    rb"|(?P<mark>[,;\[\]{}])"
)
_COMMENT_EDGE = re.compile(rb"\(;|;\)")
_ID = re.compile(rb"\$" + _CHARACTER + rb"+|\$" + _STRING)
_ESCAPE = re.compile(rb"\\(?:([nrt'\"\\])|([0-9A-Fa-f]{2})|u\{([0-9A-Fa-f_]+)\})")
_PLAIN_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def position(source: bytes, offset: int) -> tuple[int, int]:
    """Line and column (both from 1, columns in characters) of a byte offset."""
    before = source[:offset]
    line_start = max(before.rfind(b"\n"), before.rfind(b"\r")) + 1
    line = before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1
    return line, len(before[line_start:].decode("utf-8", "replace")) + 1


def fail(message: str, source: bytes, offset: int) -> MalformedError:
    """The error to raise at a place in the source."""
    return MalformedError(message, None, *position(source, offset))


def caret(source: bytes, line: int, column: int) -> str:
    """The line of the source and below it a caret under the column."""
    lines = re.split(r"\r\n|\r|\n", source.decode("utf-8", "replace"))
    text = lines[line - 1] if line <= len(lines) else ""
    shown = text.expandtabs(1)
    return f"{shown}\n{' ' * (column - 1)}^"


@dataclass(slots=True)
class Annotation:
    """`(@id ...)`: it stood before token `before` of the source; its contents are tokens of their own."""

    id: bytes
    before: int
    offset: int
    contents: Tokens


@dataclass(slots=True)
class Tokens:
    """The tokens of a source in columns, and its annotations in order."""

    source: bytes
    kinds: list[int]
    starts: list[int]
    ends: list[int]
    annotations: list[Annotation]

    def __len__(self) -> int:
        return len(self.kinds)

    def text(self, index: int) -> bytes:
        """The token as it stands in the source."""
        return self.source[self.starts[index] : self.ends[index]]

    def string(self, index: int) -> bytes:
        """The bytes a string token stands for."""
        return unescape(self.source[self.starts[index] + 1 : self.ends[index] - 1])

    def identifier(self, index: int) -> bytes:
        """An identifier without its `$`; quoted ones are unescaped."""
        text = self.source[self.starts[index] + 1 : self.ends[index]]
        return unescape(text[1:-1]) if text[:1] == b'"' else text

    def close(self, index: int) -> int:
        """The index of the parenthesis that closes the one at `index`. Raises MalformedError."""
        kinds, depth = self.kinds, 0
        for place in range(index, len(kinds)):
            kind = kinds[place]
            if kind == LEFT:
                depth += 1
            elif kind == RIGHT:
                depth -= 1
                if depth == 0:
                    return place
        raise self.error("unexpected token: a parenthesis is never closed", index)

    def offset(self, index: int) -> int:
        """Where a token starts; the end of the source for the index behind the last one."""
        return self.starts[index] if index < len(self.starts) else len(self.source)

    def error(self, message: str, index: int) -> MalformedError:
        """The error to raise at a token."""
        return fail(message, self.source, self.offset(index))


def unescape(text: bytes) -> bytes:
    """The bytes of a string's contents: escapes replaced."""
    return _ESCAPE.sub(_unescaped, text) if b"\\" in text else text


def _unescaped(match: re.Match[bytes]) -> bytes:
    plain, byte, point = match.groups()
    if plain is not None:
        return _PLAIN_ESCAPES.get(plain, plain)
    if byte is not None:
        return bytes.fromhex(byte.decode())
    return chr(int(point.replace(b"_", b""), 16)).encode("utf-8")


def tokenize(source: bytes) -> Tokens:
    """All tokens of a source. Raises MalformedError for what is no token."""
    return _scan(source, 0, inside=False)[0]


def _scan(source: bytes, pos: int, inside: bool) -> tuple[Tokens, int]:
    """Tokens from `pos` on; `inside` of an annotation up to the parenthesis that closes it."""
    kinds: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    annotations: list[Annotation] = []
    tokens = Tokens(source, kinds, starts, ends, annotations)
    match_at = _TOKEN.match
    depth, size = 0, len(source)
    while pos < size:
        found = match_at(source, pos)
        if found is None:
            raise _no_token(source, pos)
        kind, end = found.lastgroup, found.end()
        if kind == "space":
            pos = end
            continue
        if kind == "block":
            pos = _comment(source, pos)
            continue
        if kind == "annotation":
            if not inside:
                pos = _annotation(tokens, pos)
                continue
            end = pos + 1
            kind = "left"
        starts.append(pos)
        ends.append(end)
        if kind == "run":
            kinds.append(_run(source, pos, end, inside))
        elif kind == "left":
            kinds.append(LEFT)
            depth += 1
        elif kind == "right":
            if inside and depth == 0:
                starts.pop()
                ends.pop()
                return tokens, end
            kinds.append(RIGHT)
            depth -= 1
        else:
            kinds.append(RESERVED)
        pos = end
    if inside:
        raise fail("unclosed annotation", source, size)
    return tokens, pos


def _run(source: bytes, start: int, end: int, inside: bool) -> int:
    """The kind of a maximal run of characters and strings; `inside` of an annotation it need mean nothing."""
    text = source[start:end]
    first = text[:1]
    if first == b"$":
        if len(text) == 1 or text == b'$""':
            if inside:
                return RESERVED
            raise fail("empty identifier", source, start)
        if not _ID.fullmatch(text):
            return RESERVED
        if b'"' in text:
            _check_points(source, text, start)
            try:
                unescape(text[2:-1]).decode("utf-8")
            except UnicodeDecodeError:
                if inside:
                    return RESERVED
                raise fail("malformed UTF-8 encoding", source, start) from None
        return ID
    if b'"' not in text:
        return WORD
    _check_points(source, text, start)
    # One string, not several side by side.
    return STRING if first == b'"' and re.fullmatch(_STRING, text) else RESERVED


def _check_points(source: bytes, text: bytes, start: int) -> None:
    """Escaped code points must be scalar values, and everything else well-formed UTF-8."""
    for match in _ESCAPE.finditer(text):
        if match[3] is not None:
            point = int(match[3].replace(b"_", b""), 16)
            if point >= 0x110000 or 0xD800 <= point < 0xE000:
                raise fail("malformed UTF-8 encoding: no such code point", source, start + match.start())
    if not text.isascii():
        _check_utf8(source, text, start)


def _check_utf8(source: bytes, text: bytes, start: int) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fail("malformed UTF-8 encoding", source, start + error.start) from None


def _comment(source: bytes, start: int) -> int:
    """The end of a block comment; they nest."""
    depth, pos = 0, start
    while True:
        edge = _COMMENT_EDGE.search(source, pos)
        if edge is None:
            raise fail("unclosed comment", source, start)
        pos = edge.end()
        depth += 1 if edge[0] == b"(;" else -1
        if depth == 0:
            return pos


_ANNOTATION_ID = re.compile(_CHARACTER + rb"+|" + _STRING)


def _annotation(tokens: Tokens, start: int) -> int:
    """Take an annotation out of the tokens; where it ends."""
    source = tokens.source
    name = _ANNOTATION_ID.match(source, start + 2)
    if name is None:
        raise fail("empty annotation id", source, start)
    text = name[0]
    if text[:1] == b'"':
        _check_points(source, text, start)
        text = unescape(text[1:-1])
        if not text:
            raise fail("empty annotation id", source, start)
        _check_utf8(source, text, start)
    contents, end = _scan(source, name.end(), inside=True)
    tokens.annotations.append(Annotation(text, len(tokens.kinds), start, contents))
    return end


def _no_token(source: bytes, pos: int) -> MalformedError:
    """Why no token starts here."""
    byte = source[pos]
    if byte == 0x22:
        return _bad_string(source, pos)
    if byte >= 0x80:
        try:
            source[pos:].decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start == 0:
                return fail("malformed UTF-8 encoding", source, pos)
    return fail(f"illegal character {chr(byte)!r}" if byte < 0x80 else "illegal character", source, pos)


def _bad_string(source: bytes, start: int) -> MalformedError:
    pos = start + 1
    while (found := re.compile(_IN_STRING).match(source, pos)) is not None:
        pos = found.end()
    if pos >= len(source) or source[pos] in b"\n\r":
        return fail("unclosed string", source, start)
    if source[pos] == 0x5C:
        return fail("illegal escape: malformed string", source, pos)
    return fail("illegal character in string", source, pos)
