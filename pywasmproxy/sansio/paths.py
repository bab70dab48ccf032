"""The target of a request, tidied up before anybody acts on it: path normalisation, host without port. Pure.

Source: Envoy 1.40 as measured, RFC 3986 section 6.2.2. The query is never touched.
"""

from __future__ import annotations

import re

from pywasmproxy.config.model_manager import EscapedSlashes, StripPort, TargetRules

UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Characters that mean the same escaped and unescaped (RFC 3986, section 2.3)."""

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(rb"%2[Ff]|%5[Cc]")
_SLASHES = re.compile(rb"/{2,}")


class BadPath(Exception):
    """A path that is refused (400)."""


class Redirected(Exception):
    """A path whose escaped slashes are answered with a redirect to `path` (307)."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


def tidy_path(path: bytes, rules: TargetRules) -> bytes:
    """The path as the rules want it. BadPath, Redirected."""
    bare, mark, query = path.partition(b"?")
    action = rules.escaped_slashes
    unescaped = False
    if action is not EscapedSlashes.KEEP_UNCHANGED and _ESCAPED_SLASH.search(bare):
        if action is EscapedSlashes.REJECT_REQUEST:
            raise BadPath
        bare = _ESCAPED_SLASH.sub(lambda found: b"/" if found[0][1:2] == b"2" else b"\\", bare)
        unescaped = action is EscapedSlashes.UNESCAPE_AND_REDIRECT
    if rules.normalize:
        bare = normalized(bare)
    if rules.merge_slashes:
        bare = _SLASHES.sub(b"/", bare)
    if unescaped:
        raise Redirected(bare + mark + query)
    return bare + mark + query


def normalized(path: bytes) -> bytes:
    """A path without a query in its normal form. BadPath for an escaped NUL, and for what is no path."""
    if not path.startswith(b"/"):
        raise BadPath
    path = _ESCAPE.sub(_unescaped, path.replace(b"\\", b"/"))
    segments: list[bytes] = []
    parts = path.split(b"/")[1:]
    for place, segment in enumerate(parts):
        last = place == len(parts) - 1
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment != b".":
            segments.append(segment)
            continue
        if last:
            segments.append(b"")
    return b"/" + b"/".join(segments)


def _unescaped(found: re.Match[bytes]) -> bytes:
    code = int(found[1], 16)
    if code == 0:
        raise BadPath
    return bytes((code,)) if code in UNRESERVED else found[0]


_PORT = re.compile(rb":(\d+)$")


def tidy_host(host: bytes, rules: TargetRules, listener_port: int | None) -> bytes:
    """The host without the port, or the dot at its end, that the rules take off."""
    found = _PORT.search(host)
    if rules.strip_trailing_dot:
        name = host if found is None else host[: found.start()]
        if name.endswith(b"."):
            host = name[:-1] + host[len(name) :]
            found = _PORT.search(host)
    if found is None or rules.strip_port is StripPort.NONE:
        return host
    ours = rules.strip_port is StripPort.ANY or int(found[1]) == listener_port
    return host[: found.start()] if ours else host
