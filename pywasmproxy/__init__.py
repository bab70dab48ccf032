"""The Envoy-shaped part: filter chains and the reverse proxy around them. Layer 3; imports `abi`.

Names are loaded on first use, so that `import pywasmproxy` alone costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pywasmproxy.config import ConfigError
    from pywasmproxy.sansio.chain import FilterChain
    from pywasmproxy.sansio.commands import (
        ResetDownstream,
        ResetUpstream,
        SendDownstreamBody,
        SendDownstreamHeaders,
        SendDownstreamTrailers,
        SendUpstreamBody,
        SendUpstreamHeaders,
        SendUpstreamTrailers,
        StreamDone,
    )
    from pywasmproxy.sansio.events import (
        DownstreamClosed,
        RequestBody,
        RequestHeaders,
        RequestTrailers,
        ResponseBody,
        ResponseHeaders,
        ResponseTrailers,
        UpstreamFailed,
    )
    from pywasmproxy.sansio.native import NativeFilter
    from pywasmproxy.sansio.states import StreamStateError
    from pywasmproxy.server.proxy import Proxy

_HOMES: dict[str, tuple[str, ...]] = {
    "config": ("ConfigError",),
    "sansio.chain": ("FilterChain",),
    "sansio.commands": (
        "ResetDownstream",
        "ResetUpstream",
        "SendDownstreamBody",
        "SendDownstreamHeaders",
        "SendDownstreamTrailers",
        "SendUpstreamBody",
        "SendUpstreamHeaders",
        "SendUpstreamTrailers",
        "StreamDone",
    ),
    "sansio.events": (
        "DownstreamClosed",
        "RequestBody",
        "RequestHeaders",
        "RequestTrailers",
        "ResponseBody",
        "ResponseHeaders",
        "ResponseTrailers",
        "UpstreamFailed",
    ),
    "sansio.native": ("NativeFilter",),
    "sansio.states": ("StreamStateError",),
    "server.proxy": ("Proxy",),
}

__all__ = [
    "ConfigError",
    "DownstreamClosed",
    "FilterChain",
    "NativeFilter",
    "Proxy",
    "RequestBody",
    "RequestHeaders",
    "RequestTrailers",
    "ResetDownstream",
    "ResetUpstream",
    "ResponseBody",
    "ResponseHeaders",
    "ResponseTrailers",
    "SendDownstreamBody",
    "SendDownstreamHeaders",
    "SendDownstreamTrailers",
    "SendUpstreamBody",
    "SendUpstreamHeaders",
    "SendUpstreamTrailers",
    "StreamDone",
    "StreamStateError",
    "UpstreamFailed",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
