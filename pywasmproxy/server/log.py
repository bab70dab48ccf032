"""Log lines in Envoy's shape: `[time][process][level][component] [file:line] text`, on standard error.

With `json` each line is an object instead, and a guest's line has its plugin, root_id and vm_id apart.

Not the `logging` module: levels differ per component at run time, a guest's line is written verbatim (its
own newlines included), and a line that is switched off must cost next to nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence

from abi.proxy_wasm.host import LogPrefix
from abi.proxy_wasm.types import LogLevel

LEVEL_NAMES: dict[str, LogLevel] = {
    "trace": LogLevel.TRACE,
    "debug": LogLevel.DEBUG,
    "info": LogLevel.INFO,
    "warning": LogLevel.WARN,
    "warn": LogLevel.WARN,
    "error": LogLevel.ERROR,
    "critical": LogLevel.CRITICAL,
    "off": LogLevel.OFF,
}
"""Names as `-l` and `--component-log-level` take them."""

_SHOWN = {level: name for name, level in reversed(LEVEL_NAMES.items())}
_SHOWN[LogLevel.WARN] = "warning"


def level_name(level: LogLevel) -> str:
    """How a level is written."""
    return _SHOWN[level]


COMPONENTS = ("main", "config", "http", "filter", "upstream", "router", "wasm", "admin")
"""Components with a level of their own."""


def parse_component_levels(text: str) -> dict[str, LogLevel]:
    """`wasm:debug,http:trace` as a mapping; ValueError names what is not understood."""
    levels: dict[str, LogLevel] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        component, colon, level = part.partition(":")
        if component not in COMPONENTS:
            raise ValueError(f"unknown log component {component!r}; known: {', '.join(COMPONENTS)}")
        if not colon or level not in LEVEL_NAMES:
            raise ValueError(f"{part!r} is not COMPONENT:LEVEL; levels: {', '.join(LEVEL_NAMES)}")
        levels[component] = LEVEL_NAMES[level]
    return levels


def _write_stderr(text: str) -> None:
    stream = sys.stderr
    if stream is not None:
        stream.write(text)
        stream.flush()


class Logger:
    """Lines of one component. `level` may be changed at any time."""

    __slots__ = ("_json", "_sink", "component", "level")

    def __init__(
        self, component: str, level: LogLevel, sink: Callable[[str], None], *, json: bool = False
    ) -> None:
        self.component = component
        self.level = level
        self._sink = sink
        self._json = json

    def log(
        self, level: LogLevel, text: str, *, depth: int = 1, fields: Mapping[str, str] | None = None
    ) -> None:
        """Write a line if the level lets it through; `depth` says how many calls up the caller is. As JSON
        the line has further `fields`, and one called `message` stands for the text."""
        if level < self.level or level is LogLevel.OFF:
            return
        frame = sys._getframe(depth)
        name = frame.f_globals.get("__name__", "?").replace(".", "/")
        now = time.time()
        if self._json:
            source = f"{name}.py:{frame.f_lineno}"
            self._sink(self._as_json(level, now, source, fields or {"message": text}))
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        # Characters that stderr's encoding lacks must not cost us the line, let alone the stream.
        line = (
            f"[{stamp}.{int(now * 1000) % 1000:03d}][{os.getpid()}][{_SHOWN[level]}][{self.component}] "
            f"[{name}.py:{frame.f_lineno}] {text}\n"
        )
        self._sink(line.encode("utf-8", "replace").decode("utf-8"))

    def _as_json(self, level: LogLevel, now: float, source: str, fields: Mapping[str, str]) -> str:
        """The line as a JSON object: never more than one line, whatever is in it."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = {
            "time": f"{stamp}.{int(now * 1000) % 1000:03d}Z",
            "pid": os.getpid(),
            "level": _SHOWN[level],
            "component": self.component,
            "source": source,
            **fields,
        }
        return json.dumps(line) + "\n"

    def trace(self, text: str) -> None:
        self.log(LogLevel.TRACE, text, depth=2)

    def debug(self, text: str) -> None:
        self.log(LogLevel.DEBUG, text, depth=2)

    def info(self, text: str) -> None:
        self.log(LogLevel.INFO, text, depth=2)

    def warning(self, text: str) -> None:
        self.log(LogLevel.WARN, text, depth=2)

    def error(self, text: str) -> None:
        self.log(LogLevel.ERROR, text, depth=2)

    def critical(self, text: str) -> None:
        self.log(LogLevel.CRITICAL, text, depth=2)


class Log:
    """The loggers of one process."""

    def __init__(
        self,
        level: LogLevel = LogLevel.INFO,
        components: Mapping[str, LogLevel] | None = None,
        sink: Callable[[str], None] = _write_stderr,
        *,
        json: bool = False,
    ) -> None:
        levels = components or {}
        self._loggers = {name: Logger(name, levels.get(name, level), sink, json=json) for name in COMPONENTS}

    def __getitem__(self, component: str) -> Logger:
        return self._loggers[component]

    def set_level(self, level: LogLevel, component: str | None = None) -> None:
        """Change the level of one component, or of all."""
        for name, logger in self._loggers.items():
            if component in (None, name):
                logger.level = level


class WasmHost:
    """What plugins ask of this process (`abi.proxy_wasm.host.Host`): log lines, time, clusters ..."""

    def __init__(
        self,
        logger: Logger,
        node: Mapping[str, object] | None = None,
        clusters: Container[str] = (),
        hosts: Callable[[str], Sequence[str]] = lambda name: (),
    ) -> None:
        self._logger = logger
        self.cluster_hosts = hosts
        self._clusters = clusters
        self.node = dict(node or {})  # who this proxy is, for filters that ask outside of an exchange

    def silent(self) -> WasmHost:
        """The same for guests that are only tried out: only what the host says about them is written."""
        return _Silent(self._logger, self.node, self._clusters, self.cluster_hosts)

    @property
    def log_level(self) -> LogLevel:
        return self._logger.level

    def log(self, level: LogLevel, prefix: str, message: str) -> None:
        text = f"wasm log {prefix}: {message}" if prefix else f"wasm log: {message}"
        fields = None
        if isinstance(prefix, LogPrefix):
            parts = {"plugin": prefix.plugin, "root_id": prefix.root_id, "vm_id": prefix.vm_id}
            fields = {"message": message} | {name: value for name, value in parts.items() if value}
        self._logger.log(level, text, depth=2, fields=fields)

    def error(self, message: str) -> None:
        self._logger.log(LogLevel.ERROR, message, depth=2)

    def critical(self, message: str) -> None:
        """The last lines of a refused start."""
        self._logger.log(LogLevel.CRITICAL, message, depth=2)

    def trace(self, message: str) -> None:
        """A call into or out of a guest."""
        self._logger.log(LogLevel.TRACE, message, depth=2)

    wall_clock_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    random_bytes = staticmethod(os.urandom)

    def has_cluster(self, name: str) -> bool:
        return name in self._clusters

    def refuses_grpc(self) -> str:
        """Why no gRPC calls can be made here; "" when they can."""
        from pywasmproxy.server.http2 import missing

        return missing()


class _Silent(WasmHost):
    def log(self, level: LogLevel, prefix: str, message: str) -> None:
        pass

    def trace(self, message: str) -> None:
        pass
