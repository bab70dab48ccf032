"""Small Envoy bootstraps for tests: a complete file with one part replaced.

Parts are YAML in flow style (or any text without a line break that matters), so that line numbers stay known:
the part's own line can be found with `line_of`.
"""

from __future__ import annotations

from pathlib import Path

from pywasmproxy.config.envoy import load
from pywasmproxy.config.errors import ConfigError
from pywasmproxy.config.model import Bootstrap, HttpConnectionManager, WasmPlugin

HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
WASM = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
WELL_KNOWN = "type.googleapis.com/google.protobuf."
EMPTY_MODULE = "AGFzbQEAAAA="  # base64 of the eight bytes every module begins with

ROUTER_ENTRY = f'{{name: router, typed_config: {{"@type": {ROUTER}}}}}'

TEMPLATE = """\
%(node)s
%(top)s
static_resources:
  listeners:
  - name: listener_0
    address: %(address)s
    %(listener)s
    filter_chains:
    - filters:
      - name: manager
        typed_config:
          "@type": %(http)s
          stat_prefix: ingress
          %(manager)s
          route_config:
            name: local_route
            %(route_config)s
            virtual_hosts:
            - name: host
              domains: %(domains)s
              %(host)s
              routes:
              - %(route)s
          http_filters: %(filters)s
  %(more)s
  clusters:
  - name: svc
    %(cluster)s
    %(assignment)s
"""

DEFAULTS = {
    "node": "",
    "top": "",
    "address": "{socket_address: {address: 127.0.0.1, port_value: 8099}}",
    "listener": "",
    "http": HTTP,
    "manager": "",
    "route_config": "",
    "domains": '["*"]',
    "host": "",
    "route": "{match: {prefix: /}, route: {cluster: svc}}",
    "filters": f"[{ROUTER_ENTRY}]",
    "more": "",
    "cluster": "",
    "assignment": "load_assignment: {cluster_name: svc, endpoints: [{lb_endpoints: [{endpoint: {address: "
    "{socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]}",
}


def bootstrap(**parts: str) -> str:
    """The text of a complete bootstrap with these parts of TEMPLATE replaced."""
    unknown = parts.keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(f"no such part: {unknown}")
    return TEMPLATE % {**DEFAULTS, **parts}


def line_of(text: str, needle: str) -> int:
    """Line (from 1) of the first line that contains `needle`."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if needle in line)


def read(environ: dict[str, str] | None = None, /, directory: str | Path = "", **parts: str) -> Bootstrap:
    """Loads such a bootstrap."""
    return load(bootstrap(**parts), "test.yaml", environ=environ or {}, directory=directory)


def manager(**parts: str) -> HttpConnectionManager:
    """Its connection manager."""
    return read(**parts).listeners[0].http


def refused(environ: dict[str, str] | None = None, /, **parts: str) -> ConfigError:
    """The error such a bootstrap is refused with."""
    try:
        read(environ, **parts)
    except ConfigError as error:
        return error
    raise AssertionError("the configuration was accepted")


def wasm(plugin: str = "", vm: str = "", code: str = f"{{local: {{inline_bytes: {EMPTY_MODULE}}}}}") -> str:
    """`http_filters` with one wasm filter; the arguments are YAML flow entries such as `name: a`."""
    machine = ", ".join(filter(None, (f"code: {code}", vm)))
    config = ", ".join(filter(None, (f"vm_config: {{{machine}}}", plugin)))
    return f'[{{name: w, typed_config: {{"@type": {WASM}, config: {{{config}}}}}}}, {ROUTER_ENTRY}]'


def plugin(
    environ: dict[str, str] | None = None, /, directory: str | Path = "", node: str = "", **parts: str
) -> WasmPlugin:
    """The plugin of a bootstrap whose wasm filter has these parts (see `wasm`)."""
    found = read(environ, directory, filters=wasm(**parts), node=node).listeners[0].http.http_filters[0]
    return found.plugin  # type: ignore[union-attr]
