"""One exchange from its first event to StreamDone, with Python filters that do nothing special."""

from __future__ import annotations

import pytest

from pywasmproxy.sansio import commands as do
from pywasmproxy.sansio import events as ev
from pywasmproxy.sansio.states import StreamStateError
from tests.pywasmproxy.sansio.driver import Scene


def test_get() -> None:
    scene = Scene({}, {})
    exchange = scene.open()
    exchange.get()
    exchange.respond(b"Hello ", b"World!", lines=[("content-length", "12")])
    assert exchange.kinds() == [
        "SendUpstreamHeaders",
        "StartRouteTimeout",
        "SendDownstreamHeaders",
        "SendDownstreamBody",
        "SendDownstreamBody",
        "SendDownstreamBody",
        "StreamDone",
    ]
    assert exchange.body == b"Hello World!"
    assert scene.calls == [
        "one reqh 6,1",
        "two reqh 6,1",
        "two resph 3,0",
        "one resph 3,0",
        "two respb 6,0",
        "one respb 6,0",
        "two respb 6,0",
        "one respb 6,0",
        "two respb 0,1",
        "one respb 0,1",
        "one log",
        "two log",
        "one done",
        "one delete",
        "two done",
        "two delete",
    ]
