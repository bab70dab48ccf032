"""proxy-wasm: hosts filters written for the proxy-wasm ABI 0.1.0, 0.2.0, 0.2.1 and Higress' 0.2.100.

Names are loaded on first use, so that a command line which only needs one of them starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from abi.proxy_wasm.callouts import Answer
    from abi.proxy_wasm.contexts import HttpContext, RootContext
    from abi.proxy_wasm.deferred import (
        CallOut,
        CancelCall,
        ClearRouteCache,
        CloseStream,
        ContinueStream,
        GrpcCall,
        GrpcClose,
        GrpcSend,
        GrpcStream,
        HttpCall,
        LocalResponse,
        StreamEffect,
    )
    from abi.proxy_wasm.extensions import Extension
    from abi.proxy_wasm.failures import PluginFailure, PluginStartError
    from abi.proxy_wasm.header_map import HeaderMap
    from abi.proxy_wasm.host import Host, LogRecord, MemoryHost
    from abi.proxy_wasm.plugin import Plugin
    from abi.proxy_wasm.registry import VmRegistry
    from abi.proxy_wasm.stream_info import StreamInfo
    from abi.proxy_wasm.types import Action, LogLevel, MapType, Status, StreamType
    from abi.proxy_wasm.versions import AbiVersion
    from abi.proxy_wasm.vm import Vm

_HOMES = {
    "AbiVersion": "versions",
    "Action": "types",
    "Answer": "callouts",
    "CallOut": "deferred",
    "CancelCall": "deferred",
    "ClearRouteCache": "deferred",
    "CloseStream": "deferred",
    "ContinueStream": "deferred",
    "Extension": "extensions",
    "GrpcCall": "deferred",
    "GrpcClose": "deferred",
    "GrpcSend": "deferred",
    "GrpcStream": "deferred",
    "HeaderMap": "header_map",
    "Host": "host",
    "HttpCall": "deferred",
    "HttpContext": "contexts",
    "LocalResponse": "deferred",
    "LogLevel": "types",
    "LogRecord": "host",
    "MapType": "types",
    "MemoryHost": "host",
    "Plugin": "plugin",
    "PluginFailure": "failures",
    "PluginStartError": "failures",
    "RootContext": "contexts",
    "Status": "types",
    "StreamEffect": "deferred",
    "StreamInfo": "stream_info",
    "StreamType": "types",
    "Vm": "vm",
    "VmRegistry": "registry",
}

__all__ = [
    "AbiVersion",
    "Action",
    "Answer",
    "CallOut",
    "CancelCall",
    "ClearRouteCache",
    "CloseStream",
    "ContinueStream",
    "Extension",
    "GrpcCall",
    "GrpcClose",
    "GrpcSend",
    "GrpcStream",
    "HeaderMap",
    "Host",
    "HttpCall",
    "HttpContext",
    "LocalResponse",
    "LogLevel",
    "LogRecord",
    "MapType",
    "MemoryHost",
    "Plugin",
    "PluginFailure",
    "PluginStartError",
    "RootContext",
    "Status",
    "StreamEffect",
    "StreamInfo",
    "StreamType",
    "Vm",
    "VmRegistry",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
