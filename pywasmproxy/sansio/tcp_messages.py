"""The language of a TCP connection's core: what happens to it (events) and what is to be done (commands).

As `events.py` and `commands.py` are for HTTP; `UpstreamConnected`, `UpstreamFailed`, `IdleTimeout` and
`Resumed` are the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pywasmproxy.sansio.events import IdleTimeout, Resumed, UpstreamConnected, UpstreamFailed

# --- events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewConnection:
    """A client has connected. The first event; nothing is to be read from the client before
    `ResumeDownstream`."""


@dataclass(frozen=True, slots=True)
class DownstreamData:
    """Bytes of the client. The end may come with them or alone: the client has shut down its side."""

    data: bytes
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class DownstreamReset:
    """The client's connection broke: nothing comes from it and nothing can be sent to it any more."""


@dataclass(frozen=True, slots=True)
class UpstreamData:
    """Bytes of the upstream. The end may come with them or alone: the upstream has shut down its side."""

    data: bytes
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamReset:
    """The upstream's connection broke: nothing comes from it and nothing can be sent to it any more."""


@dataclass(frozen=True, slots=True)
class ProxyStops:
    """The proxy gives the connection up: it shuts down, or cannot go on."""


TcpEvent: TypeAlias = (
    NewConnection
    | DownstreamData
    | DownstreamReset
    | UpstreamConnected
    | UpstreamFailed
    | UpstreamData
    | UpstreamReset
    | ProxyStops
    | IdleTimeout
    | Resumed
)

# --- commands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectUpstream:
    """Connect to a host of this cluster. Answered by `UpstreamConnected` or `UpstreamFailed`."""

    cluster: str


@dataclass(frozen=True, slots=True)
class SendUpstream:
    """Bytes for the upstream; `end_of_stream`: shut down this side behind them."""

    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class SendDownstream:
    """Bytes for the client; `end_of_stream`: shut down this side behind them."""

    data: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class PauseDownstream:
    """Enough of the client's bytes is waiting here: read no more of them for now."""


@dataclass(frozen=True, slots=True)
class ResumeDownstream:
    """Read the client's bytes; also the beginning of reading."""


@dataclass(frozen=True, slots=True)
class PauseUpstream:
    """Enough of the upstream's bytes is waiting here: read no more of them for now."""


@dataclass(frozen=True, slots=True)
class ResumeUpstream:
    """Go on reading the upstream's bytes."""


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Close the upstream's connection, or give up connecting. `reset`: at once, as a broken one; else after
    what has been sent is out."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class CloseDownstream:
    """Close the client's connection. `reset`: at once, as a broken one; else after what has been sent is
    out."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionDone:
    """Every callback has run: the last command, exactly once. No further event means anything."""


TcpCommand: TypeAlias = (
    ConnectUpstream
    | SendUpstream
    | SendDownstream
    | PauseDownstream
    | ResumeDownstream
    | PauseUpstream
    | ResumeUpstream
    | CloseUpstream
    | CloseDownstream
    | ConnectionDone
)
