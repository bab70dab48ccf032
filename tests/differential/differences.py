"""Where we differ from Envoy 1.40 on purpose: the whole table, each with its reason. Nothing else may differ.

An entry covers a difference when all its patterns match: where it is, what Envoy did and what we did. Every
entry must be needed by some scene; `test_differential.py` names those that are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class OnPurpose:
    """One kind of difference; `where` is matched against `scene:exchange what`."""

    reason: str
    where: str
    envoy: str
    ours: str

    def covers(self, place: str, envoy: str, ours: str) -> bool:
        pairs = (self.where, place), (self.envoy, envoy), (self.ours, ours)
        return all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in pairs)

    def where_scene(self, scene: str) -> bool:
        """Whether this is about the scene: its name stands before a colon in `where`."""
        return re.search(rf"\b{scene}:", self.where) is not None


_STRICTER = r"requests:(two-hosts|lf-only|folded) .*"

ON_PURPOSE = [
    OnPurpose(
        "Two hosts, bare LF and folded lines are how requests are smuggled past a proxy: refused with 400, "
        "which RFC 9112 (sections 3.2, 2.2 and 5.2) demands for the first and allows for the others.",
        _STRICTER + "response (body|headers|status)",
        r"ok|content-length: 2; x-envoy-upstream-service-time: <ms>|200",
        r"Bad Request|connection: close; content-length: 11; content-type: text/plain|400",
    ),
    OnPurpose(
        "The same, as seen by the upstream and by the filters.",
        _STRICTER + r"(number of upstream requests|guest line 1 of 19, 14)",
        r"1|\[info\] p r v: on_request_headers\(#1, \d, 1\)",
        r"0|\[info\] p r v: on_log\(#1\)",
    ),
    OnPurpose(
        "A kept connection may have been closed by the upstream while the request was on its way. When no "
        "byte came back and the method is safe, it is sent once more on a new connection; Envoy answers 503.",
        r"(responses:reset|calls:closes) number of upstream requests",
        r"1|2",
        r"2|3",
    ),
    OnPurpose(
        "A chunk that came whole before a broken one is passed on before the response is cut off; Envoy "
        "drops what came in the same read.",
        r"responses:bad-chunk (response body|guest line 4 of 13, 15)",
        r"|\[info\] p r v: on_log\(#1\)",
        r"Hello|\[info\] p r v: on_response_body\(#1, 5, 0\)",
    ),
    OnPurpose(
        "Why a connection failed is not told in the operating system's words, which differ between systems.",
        r"routes:dead(-post)? guest line \d+",
        r".*remote_connection_failure\|delayed_connect_error:_Connection_refused\}\"",
        r".*remote_connection_failure\}\"",
    ),
]
