"""What is accepted in a head, beyond what the libraries say of it. RFC 9112, with Envoy's verdicts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pywasmproxy.server.codec import IN_CHUNKS, OF_LENGTH, Framing, HeaderLines, ProtocolError

METHODS = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL"
    b" MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SUBSCRIBE TRACE"
    b" UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""Methods that are let through: those both libraries know. Case counts."""

REQUEST_LINE = re.compile(rb"([A-Z-]{1,32}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\r\n")
PLAIN_LINE = re.compile(rb"[A-Z-]{1,32} /[\w.~!$&'()*+,;=:@%/?-]* HTTP/1\.1\r\n", re.ASCII)
"""A request line that no library has anything against, if it knows the method."""
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?\r\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)([^#]*)")
_AUTHORITY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]*")
_LENGTH_FIELD = b"\r\ncontent-length:"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_PLAIN = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))


_CLEAN = re.compile(rb"(?:[\t\x20-\x7e\x80-\xff]+\r\n(?![\t ]))+\r\n")
"""A whole block that `check_text` has nothing against."""


def check_text(block: bytes | bytearray) -> None:
    """Refuse control bytes, bare CR or LF, and folded lines (a block may end between CR and LF)."""
    controls = block.translate(None, _PLAIN)
    breaks = len(controls) // 2
    if controls != b"\r\n" * breaks and controls != b"\r\n" * breaks + b"\r":
        code = "http1.invalid_characters" if controls.strip(b"\r\n") else "http1.codec_error"
        raise ProtocolError(400, "control byte, bare CR or bare LF", code)
    if breaks != block.count(b"\r\n"):
        raise ProtocolError(400, "CR and LF apart")
    if b"\r\n " in block or b"\r\n\t" in block:
        raise ProtocolError(400, "folded header line")


def check_block(block: bytes) -> None:
    """The same for a whole block."""
    if _CLEAN.fullmatch(block) is None:
        check_text(block)  # says what is wrong


def refused(head: bytes, reason: str) -> ProtocolError:
    """The verdict on a head that the library refused: 501 for transfer codings, else 400.

    The libraries fail at different moments, so the block (already known to have clean line ends) is looked
    through once more, in one way for both.
    """
    codings: list[bytes] = []
    has_length = False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"transfer-encoding":
            codings.append(value.strip(b" \t").lower())
        has_length = has_length or name.lower() == b"content-length"
    if codings and codings != [b"chunked"]:
        return ProtocolError(501, "unsupported transfer coding", "http1.invalid_transfer_encoding")
    if codings and has_length:
        return ProtocolError(400, reason, "http1.content_length_and_chunked_not_allowed")
    return ProtocolError(400, reason)


@dataclass(slots=True)
class Facts:
    """What the fields of a head say about framing and the connection."""

    framing: Framing | None
    length: int
    tokens: frozenset[bytes]
    expect: bytes = b""
    upgrade: bytes = b""


_NO_TOKENS: frozenset[bytes] = frozenset()


def connection_tokens(values: Iterable[bytes]) -> frozenset[bytes]:
    """The options in `connection` lines, lower-case."""
    return frozenset(token for value in values for token in value.lower().replace(b",", b" ").split())


def facts_of(headers: HeaderLines, minor: int, block: bytes) -> Facts:
    """Read the fields that matter; ProtocolError for contradictions (RFC 9112, section 6.3).

    Lengths are looked up in the block itself: h11 joins equal ones into one, llhttp refuses them.
    """
    names = {name for name, _ in headers}
    if _TELLING.isdisjoint(names):
        return NOTHING_SAID
    framing: Framing | None = None
    length = 0
    if b"transfer-encoding" in names:
        codings = [value for name, value in headers if name == b"transfer-encoding"]
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise ProtocolError(501, "unsupported transfer coding", "http1.invalid_transfer_encoding")
        if b"content-length" in names or minor == 0:
            both = b"content-length" in names
            code = "http1.content_length_and_chunked_not_allowed" if both else "http1.codec_error"
            raise ProtocolError(400, "transfer-encoding with content-length or in HTTP/1.0", code)
        framing = IN_CHUNKS
    elif b"content-length" in names:
        _, _, behind = block.lower().partition(_LENGTH_FIELD)
        value = behind.partition(b"\r")[0].strip(b" \t")
        if _LENGTH_FIELD in behind or not _DIGITS.fullmatch(value):
            raise ProtocolError(400, "bad content-length")
        framing, length = OF_LENGTH, int(value)
    tokens, expect, upgrade = _NO_TOKENS, b"", b""
    if not _OF_CONNECTIONS.isdisjoint(names):
        tokens = connection_tokens(value for name, value in headers if name == b"connection")
        for name, value in headers:
            if name == b"expect":
                expect = value.lower()
            elif name == b"upgrade":
                upgrade = value.lower()
    return Facts(framing, length, tokens, expect, upgrade)


_OF_CONNECTIONS = frozenset((b"connection", b"expect", b"upgrade"))
_TELLING = _OF_CONNECTIONS | {b"content-length", b"transfer-encoding"}
NOTHING_SAID = Facts(None, 0, _NO_TOKENS)


def place(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """Authority and path of a request target (RFC 9112, section 3.2); 400 for a form that is not one."""
    if method == b"CONNECT":
        host, path = target, b""
    elif target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        path = target
    else:
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise ProtocolError(400, "bad request target")
        host, path = absolute[1], absolute[2]
        if not path.startswith(b"/"):
            path = b"/" + path
    if not _AUTHORITY.fullmatch(host):
        raise ProtocolError(400, "bad host")
    return host, path
