"""Parts of the connection manager's settings: requests before any filter sees them, answers of its own.

After envoy.extensions.filters.network.http_connection_manager.v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pywasmproxy.config.model_log import LogFilter
from pywasmproxy.config.model_routes import HeaderAddition


class ClientCertMode(Enum):
    """What becomes of `x-forwarded-client-cert`. All but the last take it out where the client has shown no
    certificate."""

    SANITIZE = "SANITIZE"  # taken out
    FORWARD_ONLY = "FORWARD_ONLY"  # left as it is
    APPEND_FORWARD = "APPEND_FORWARD"  # the client's certificate is added
    SANITIZE_SET = "SANITIZE_SET"  # the client's certificate, and nothing else
    ALWAYS_FORWARD_ONLY = "ALWAYS_FORWARD_ONLY"  # left as it is, whoever comes


@dataclass(frozen=True, slots=True)
class ClientCertRules:
    """How upstreams are told about a client's certificate; `details` are of `subject`, `uri`, `dns`."""

    mode: ClientCertMode = ClientCertMode.SANITIZE
    details: frozenset[str] = frozenset()

    @property
    def writes(self) -> bool:
        """Whether the field may have to be written where there is none."""
        return self.mode in (ClientCertMode.APPEND_FORWARD, ClientCertMode.SANITIZE_SET)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Who is believed about the client, and what the upstream is told about it."""

    use_remote_address: bool = False
    """The peer is the client (or, behind `trusted_hops` proxies, one of those); it goes into
    `x-forwarded-for`. False: who is in front of us has done all that."""
    trusted_hops: int = 0
    """So many proxies before us are believed in what they say in `x-forwarded-for`."""
    skip_append: bool = False
    """`x-forwarded-for` is left as it is."""
    internal_ranges: tuple[str, ...] = ()
    """Networks (CIDR) whose clients are inside: they may tell Envoys what to do."""
    append_port: bool = False
    """The listener's port goes into `x-forwarded-port`."""
    via: str = ""
    """What is added to `via`, of requests and responses."""
    add_user_agent: bool = False
    """`user-agent` and the `x-envoy-downstream-service-*` fields are filled in with our own names."""
    preserve_external_request_id: bool = False
    """`x-request-id` of clients outside stays, although `use_remote_address`."""
    scheme: str | None = None
    """`:scheme` (and `x-forwarded-proto`) of all requests."""

    client_cert: ClientCertRules = ClientCertRules()

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked for."""
        return self == PLAIN_FORWARDING


PLAIN_FORWARDING = Forwarding()


class EscapedSlashes(Enum):
    """What becomes of `%2F`, `%5C` in paths."""

    KEEP_UNCHANGED = "KEEP_UNCHANGED"
    REJECT_REQUEST = "REJECT_REQUEST"
    UNESCAPE_AND_REDIRECT = "UNESCAPE_AND_REDIRECT"
    UNESCAPE_AND_FORWARD = "UNESCAPE_AND_FORWARD"


class StripPort(Enum):
    """Which port is taken off the request's host."""

    NONE = "NONE"
    MATCHING = "MATCHING"  # the listener's own
    ANY = "ANY"


@dataclass(frozen=True, slots=True)
class TargetRules:
    """How the host and the path of a request are tidied up."""

    normalize: bool = False
    """RFC 3986: dot segments are resolved, unreserved characters are not escaped; a backslash is a slash."""
    merge_slashes: bool = False
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP_UNCHANGED
    strip_port: StripPort = StripPort.NONE
    strip_trailing_dot: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked for."""
        return self == PLAIN_TARGET


PLAIN_TARGET = TargetRules()


class Underscores(Enum):
    """What becomes of headers with an underscore in their names."""

    ALLOW = "ALLOW"
    REJECT_REQUEST = "REJECT_REQUEST"
    DROP_HEADER = "DROP_HEADER"


# --- answers of the proxy's own -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BodyFormat:
    """A body made of format strings: `json` if it is set, else `text`."""

    text: str = ""
    json: Mapping[str, object] | None = None
    omit_empty_values: bool = False
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True)
class ReplyMapper:
    """What becomes of those local replies that its filter lets through; the first mapper that fits acts."""

    filter: LogFilter | None
    status: int | None = None
    body: bytes | None = None
    format: BodyFormat | None = None
    headers: tuple[HeaderAddition, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalReplies:
    """How the answers look that do not come from an upstream. `format` is for those no mapper has one for."""

    mappers: tuple[ReplyMapper, ...] = ()
    format: BodyFormat | None = None
