"""`Metered`: the counts of a listener, as seen by a connection that counts its own bytes as well."""

from __future__ import annotations

from typing import Any, cast

from pywasmproxy.stats.counts import DownstreamCounts


class Metered:
    """Stands for the counts of all; what is added to them here is also known apart.

    So a connection whose bytes nobody wants to know needs no code that counts them.
    """

    __slots__ = ("_all", "received", "sent", "told")

    def __init__(self, counts: DownstreamCounts) -> None:
        self._take("_all", counts)
        self._take("received", 0)
        self._take("sent", 0)
        self._take("told", (0, 0))

    def _take(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._all, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "told":
            self._take(name, value)
            return
        if name == "downstream_cx_rx_bytes_total":
            self._take("received", self.received + value - getattr(self._all, name))
        elif name == "downstream_cx_tx_bytes_total":
            self._take("sent", self.sent + value - getattr(self._all, name))
        setattr(self._all, name, value)


def metered(counts: DownstreamCounts) -> DownstreamCounts:
    """The counts for one connection, which can be told from others by `isinstance(..., Metered)`."""
    return cast(DownstreamCounts, Metered(counts))
