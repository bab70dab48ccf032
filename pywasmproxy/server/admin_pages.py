"""What the admin server answers: Envoy's endpoints, with its words and shapes (1.40, measured), and ours.

One table says which there are; what changes something is for POST only.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abi.proxy_wasm.types import LogLevel
from pywasmproxy.config.model import TrafficDirection
from pywasmproxy.server import admin_dump, admin_front
from pywasmproxy.server.admin import HTML, JSON, TEXT, AdminRequest, AdminResponse
from pywasmproxy.server.log import COMPONENTS, LEVEL_NAMES, level_name, parse_component_levels
from pywasmproxy.server.reloader import Refused
from pywasmproxy.server.view import View, together, view_of
from pywasmproxy.stats import render
from pywasmproxy.stats.stat import Kind, Stat
from pywasmproxy.stats.tags import Tagging

if TYPE_CHECKING:
    from pywasmproxy.server.peers import Peers
    from pywasmproxy.server.proxy import Server

_LOGGING_USAGE = """
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off\x20
"""

_KINDS = {
    "All": frozenset(Kind),
    "Counters": frozenset((Kind.COUNTER,)),
    "Gauges": frozenset((Kind.GAUGE,)),
    "Histograms": frozenset((Kind.HISTOGRAM,)),
    "TextReadouts": frozenset[Kind](),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path: what it is for, how it is answered, and whether that changes something."""

    text: str
    answer: Callable[[AdminRequest], AdminResponse | Awaitable[AdminResponse]]
    changes: bool = False
    parameters: tuple[tuple[str, str], ...] = ()


def _json(value: Any, status: int = 200) -> AdminResponse:
    return AdminResponse(json.dumps(value, indent=1, ensure_ascii=False) + "\n", status, JSON)


def _flag(request: AdminRequest, name: str) -> bool:
    """Whether a parameter is there and does not say no."""
    return request.query.get(name, "no") not in ("no", "false", "0", "n")


class AdminPages:
    """The answers for one server; with its `peers` for all workers of the proxy."""

    def __init__(self, server: Server, peers: Peers | None = None) -> None:
        self._server = server
        self._peers = peers
        stats = (
            ("usedonly", "only those that were ever counted"),
            ("filter", "regular expression that a name must contain"),
            ("invert_filter", "those that the filter leaves out"),
            ("histogram_buckets", "cumulative or summary"),
        )
        self.endpoints: dict[str, Endpoint] = {
            "/": Endpoint("Admin home page", self._front),
            "/certs": Endpoint("print certs on machine", self._certs),
            "/clusters": Endpoint(
                "upstream cluster status",
                self._clusters,
                parameters=(
                    ("format", "text or json"),
                    ("filter", "regular expression for names of clusters"),
                ),
            ),
            "/config_dump": Endpoint(
                "dump current configs, what was ignored in them, and plugins",
                self._config_dump,
                parameters=(("resource", "only this list, such as static_listeners"),),
            ),
            "/contention": Endpoint("dump current mutex contention stats (none are kept)", self._contention),
            "/drain_listeners": Endpoint(
                "drain listeners",
                self._drain,
                True,
                (
                    ("graceful", "say connection: close for the drain time before ports are closed"),
                    ("inboundonly", "only listeners with traffic_direction INBOUND"),
                ),
            ),
            "/healthcheck/fail": Endpoint("cause the server to fail health checks", self._fail, True),
            "/healthcheck/ok": Endpoint("cause the server to pass health checks", self._ok, True),
            "/help": Endpoint("print out list of admin commands", self._help),
            "/listeners": Endpoint(
                "print listener info", self._listeners, parameters=(("format", "text or json"),)
            ),
            "/logging": Endpoint(
                "query/change logging levels",
                self._logging,
                True,
                (("level", "for all loggers"), ("paths", "name:level,..."), ("<name>", "for one logger")),
            ),
            "/memory": Endpoint("print current memory usage", self._memory),
            "/quitquitquit": Endpoint("exit the server", self._quit, True),
            "/ready": Endpoint("print server state, return 200 if LIVE, otherwise return 503", self._ready),
            "/reload": Endpoint("load the configuration anew (not in Envoy)", self._reload, True),
            "/reopen_logs": Endpoint("reopen access logs", self._reopen, True),
            "/reset_counters": Endpoint("reset all counters to zero", self._reset, True),
            "/runtime": Endpoint("print runtime values (there are none)", self._runtime),
            "/server_info": Endpoint("print server version/status information", self._server_info),
            "/stats": Endpoint(
                "print server stats",
                self._stats,
                parameters=(
                    *stats,
                    ("format", "text, json or prometheus"),
                    ("type", ", ".join(_KINDS)),
                ),
            ),
            "/stats/prometheus": Endpoint(
                "print server stats in prometheus format", self._prometheus, parameters=stats
            ),
        }

    async def answer(self, request: AdminRequest) -> AdminResponse:
        """The response to a request."""
        endpoint = self.endpoints.get(request.path)
        if endpoint is None:
            said = f"invalid path. {self._commands()}"
            return AdminResponse(said, 404)
        if request.method not in ("GET", "HEAD", "POST"):
            return AdminResponse(f"Method {request.method} not allowed, GET or POST required.", 405)
        if endpoint.changes and request.method != "POST":
            self._server.log["admin"].error(
                f'admin path "{request.path}" mutates state, method={request.method} rather than POST'
            )
            return AdminResponse(f"Method {request.method} not allowed, POST required.", 405)
        if self._peers is not None:
            if not endpoint.changes and (one := request.query.get("worker")) is not None:
                return await self._of_worker(request, one, self._peers)
            await self._peers.before(request, endpoint.changes)
        found = endpoint.answer(request)
        response = found if isinstance(found, AdminResponse) else await found
        if endpoint.changes and "html" in request.query and response.status == 200:
            return AdminResponse("", 303, TEXT, location="/", afterwards=response.afterwards)
        return response

    async def _of_worker(self, request: AdminRequest, worker: str, peers: Peers) -> AdminResponse:
        """What one of the workers says of itself."""
        query = {name: value for name, value in request.query.items() if name != "worker"}
        response = await peers.answer_of(worker, AdminRequest("GET", request.path, query))
        return response or AdminResponse(f"no worker {worker!r} answers\n", 404)

    # --- what is there --------------------------------------------------------------------------------------

    def _view(self) -> View:
        """This process, and what the other workers have said just now."""
        others = [] if self._peers is None else self._peers.views
        return together(view_of(self._server), others)

    def _front(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse(admin_front.page(self._server, self._view(), self.endpoints), content_type=HTML)

    def _commands(self) -> str:
        lines = ["admin commands are:"]
        for path, endpoint in self.endpoints.items():
            lines.append(f"  {path}{' (POST)' if endpoint.changes else ''}: {endpoint.text}")
            lines += [f"      {name}: {text}" for name, text in endpoint.parameters]
        return "".join(f"{line}\n" for line in lines)

    def _help(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse(self._commands())

    def _ready(self, request: AdminRequest) -> AdminResponse:
        state = self._view().state
        return AdminResponse(f"{state}\n", 200 if state == "LIVE" else 503)

    def _server_info(self, request: AdminRequest) -> AdminResponse:
        return _json(admin_dump.server_info(self._server, self._view()))

    def _clusters(self, request: AdminRequest) -> AdminResponse:
        try:
            wanted = re.compile(request.query.get("filter", ""))
        except re.error as error:
            return AdminResponse(f"Invalid regex: {error}\n", 400)
        view = self._view()
        view.clusters = [one for one in view.clusters if wanted.search(one.name)]
        if request.query.get("format") == "json":
            return _json(admin_dump.clusters(view))
        return AdminResponse(admin_dump.clusters_text(view))

    def _listeners(self, request: AdminRequest) -> AdminResponse:
        if request.query.get("format") == "json":
            return _json(admin_dump.listeners(self._view()))
        return AdminResponse("".join(f"{port.name}::{port.address}\n" for port in self._view().ports))

    def _config_dump(self, request: AdminRequest) -> AdminResponse:
        configs = admin_dump.config_dump(self._server, self._view())
        resource = request.query.get("resource")
        if resource is not None:
            entries = next((config[resource] for config in configs if resource in config), None)
            if not isinstance(entries, list | dict):
                return AdminResponse(f"{resource} not found in config dump", 404, "text/plain")
            configs = entries if isinstance(entries, list) else [entries]
        return _json({"configs": configs})

    def _certs(self, request: AdminRequest) -> AdminResponse:
        return _json({"certificates": admin_dump.certificates(self._server)})

    def _memory(self, request: AdminRequest) -> AdminResponse:
        view = self._view()
        found = {"total_physical_bytes": view.total("memory"), "guest_memory": view.total("guest_memory")}
        return _json({name: str(value) for name, value in found.items()})

    def _runtime(self, request: AdminRequest) -> AdminResponse:
        return _json({"entries": {}, "layers": []})

    def _contention(self, request: AdminRequest) -> AdminResponse:
        return AdminResponse("Mutex contention tracing is not enabled.")

    # --- statistics -----------------------------------------------------------------------------------------

    def _selected(self, request: AdminRequest) -> list[Stat]:
        query = request.query
        return render.select(
            self._server.measures.all(),
            used_only=_flag(request, "usedonly") or query.get("usedonly") == "",
            pattern=query.get("filter", ""),
            inverted=_flag(request, "invert_filter") or query.get("invert_filter") == "",
            kinds=_KINDS[query.get("type", "All")],
        )

    def _stats(self, request: AdminRequest) -> AdminResponse:
        form = request.query.get("format", "text")
        if form not in ("text", "json", "prometheus"):
            return AdminResponse("usage: /stats?format=(json|prometheus|text)\n\n", 400)
        if request.query.get("type", "All") not in _KINDS:
            return AdminResponse(f"usage: /stats?type=({'|'.join(_KINDS)})\n\n", 400)
        if form == "prometheus":
            return self._prometheus(request)
        try:
            stats = self._selected(request)
        except render.BadFilter as error:
            return AdminResponse(f"{error}\n", 400)
        if form == "json":
            return AdminResponse(render.as_json(stats), content_type=JSON)
        cumulative = request.query.get("histogram_buckets") == "cumulative"
        return AdminResponse(render.text(stats, cumulative=cumulative))

    def _prometheus(self, request: AdminRequest) -> AdminResponse:
        try:
            stats = Tagging(self._server.bootstrap.stats).apply(self._selected(request))
            return AdminResponse(render.prometheus(stats))
        except render.BadFilter as error:
            return AdminResponse(f"{error}\n", 400)

    # --- changes --------------------------------------------------------------------------------------------

    def _reset(self, request: AdminRequest) -> AdminResponse:
        self._server.measures.reset()
        return AdminResponse("OK\n")

    def _reopen(self, request: AdminRequest) -> AdminResponse:
        self._server.access_logs.reopen()
        return AdminResponse("OK\n")

    def _fail(self, request: AdminRequest) -> AdminResponse:
        self._server.failing = True
        return AdminResponse("OK\n")

    def _ok(self, request: AdminRequest) -> AdminResponse:
        self._server.failing = False
        return AdminResponse("OK\n")

    def _drain(self, request: AdminRequest) -> AdminResponse:
        inbound = "inboundonly" in request.query
        for port in self._server.listeners:
            if not inbound or port.config.traffic_direction is TrafficDirection.INBOUND:
                self._server.drain(port, graceful="graceful" in request.query)
        return AdminResponse("OK\n")

    def _quit(self, request: AdminRequest) -> AdminResponse:
        server = self._server

        def leave() -> None:
            if server.seat is not None:  # the parent ends all workers
                os.kill(os.getppid(), signal.SIGTERM)
            else:
                server.leave.set()

        return AdminResponse("OK\n", afterwards=leave)

    async def _reload(self, request: AdminRequest) -> AdminResponse:
        server = self._server
        if server.reloader is None:
            return AdminResponse("there is nothing to load the configuration from\n", 400)
        try:
            await server.reloader.reload("admin")
        except Refused as error:
            return AdminResponse(f"refused, the running configuration stays: {error}\n", 400)
        others = None if server.seat is None else lambda: os.kill(os.getppid(), signal.SIGHUP)
        return AdminResponse("OK\n", afterwards=others)

    def _logging(self, request: AdminRequest) -> AdminResponse:
        log = self._server.log
        levels: dict[str | None, LogLevel] = {}
        for name, value in request.query.items():
            if name == "html":
                continue
            if name == "paths":
                try:
                    levels.update(parse_component_levels(value).items())
                except ValueError as error:
                    return self._no_level(f"{error}")
                continue
            if name == "group":
                name, _, value = value.partition(":")
            if name not in (*COMPONENTS, "level"):
                return self._no_level("unknown logger name")
            if value not in LEVEL_NAMES:
                return self._no_level("unknown logger level")
            levels[None if name == "level" else name] = LEVEL_NAMES[value]
        for component, level in levels.items():
            log.set_level(level, component)
        return AdminResponse(self._levels())

    def _levels(self) -> str:
        log = self._server.log
        lines = [f"  {name}: {level_name(log[name].level)}\n" for name in sorted(COMPONENTS)]
        return "active loggers:\n" + "".join(lines)

    def _no_level(self, why: str) -> AdminResponse:
        return AdminResponse(f"error: {why}\n{_LOGGING_USAGE}{self._levels()}\n", 400)
