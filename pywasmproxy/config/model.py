"""The typed configuration: what a bootstrap file says, after names, units and files have been resolved.

Shapes follow Envoy's v3 API (Bootstrap, Listener, HttpConnectionManager, RouteConfiguration, Cluster, wasm
PluginConfig), reduced to the fields this proxy honours: what stands here has an effect, the rest only warns.
All values are immutable, comparable (a reload compares two of them), and hold no open resources.

Units: every `*_timeout` and `*_interval` is in seconds (float), None means "no limit"; sizes are in bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from pywasmproxy.config.limits import Limits
from pywasmproxy.config.model_clusters import (
    DEFAULT_BALANCING,
    DEFAULT_BREAKER,
    CircuitBreaker,
    HealthCheck,
    LoadBalancing,
    OutlierDetection,
)
from pywasmproxy.config.model_log import AccessLog
from pywasmproxy.config.model_manager import (
    PLAIN_FORWARDING,
    PLAIN_TARGET,
    Forwarding,
    LocalReplies,
    TargetRules,
    Underscores,
)
from pywasmproxy.config.model_routes import ROUTE_TIMEOUT as ROUTE_TIMEOUT
from pywasmproxy.config.model_routes import DirectResponse as DirectResponse
from pywasmproxy.config.model_routes import Redirect as Redirect
from pywasmproxy.config.model_routes import Route as Route
from pywasmproxy.config.model_routes import RouteAction as RouteAction
from pywasmproxy.config.model_routes import RouteConfig as RouteConfig
from pywasmproxy.config.model_routes import RouteMatch as RouteMatch
from pywasmproxy.config.model_routes import VirtualHost as VirtualHost
from pywasmproxy.config.model_stats import DEFAULT_STATS, StatsConfig
from pywasmproxy.config.model_tls import DownstreamTls, UpstreamTls

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection to an upstream host unless the cluster says otherwise."""

STREAM_IDLE_TIMEOUT = 300.0
"""Seconds without any progress after which an exchange is given up."""

CONNECTION_IDLE_TIMEOUT = 3600.0
"""Seconds an unused keep-alive connection stays open, on either side."""

DELAYED_CLOSE_TIMEOUT = 1.0
DRAIN_TIMEOUT = 5.0
"""Seconds between the last byte of a response and the close, while the client is still sending.

Closing with unread bytes makes the kernel reset the connection, which may destroy the response.
"""

BUFFER_LIMIT = 1024 * 1024
"""Bytes of a body that may wait in memory (413 for a request, 500 for a response beyond it)."""

HEADERS_LIMIT = 60 * 1024
"""Bytes of one header block (431 beyond it)."""

HEADERS_COUNT_LIMIT = 100
"""Fields in one header block (431 beyond it)."""


# --- addresses and the process --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address. `host` is an IP address for listeners, an address or a name for upstream hosts."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Admin:
    """Where the admin server listens."""

    address: Address


@dataclass(frozen=True, slots=True)
class Node:
    """The identity of this proxy; filters read it as property `xds.node` (and `node`)."""

    id: str = ""
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    region: str = ""
    zone: str = ""
    sub_zone: str = ""

    def as_dict(self) -> dict[str, object]:
        """JSON-like form with the names of Envoy's `Node` message; unset parts are left out."""
        locality = {
            key: value
            for key, value in (("region", self.region), ("zone", self.zone), ("sub_zone", self.sub_zone))
            if value
        }
        everything: dict[str, object] = {
            "id": self.id,
            "cluster": self.cluster,
            "metadata": dict(self.metadata),
            "locality": locality,
        }
        return {key: value for key, value in everything.items() if value}


# --- wasm plugins ---------------------------------------------------------------------------------------


class FailurePolicy(Enum):
    """What happens to streams of a plugin whose VM trapped. Start-up failures are always fatal."""

    FAIL_CLOSED = "FAIL_CLOSED"  # 503 for this stream and every later one
    FAIL_OPEN = "FAIL_OPEN"  # 503 for the trapping stream, later ones skip the filter
    FAIL_RELOAD = "FAIL_RELOAD"  # 503, then a new VM after a back-off


@dataclass(frozen=True, slots=True)
class RemoteCode:
    """Code that is fetched over HTTP before it is started."""

    uri: str
    cluster: str
    timeout: float
    """Seconds for one attempt."""
    sha256: str
    """Of the code, in lower-case hexadecimal digits; what has another is not used."""
    retries: int = 1
    base_interval: float = 1.0
    """Seconds before the first retry; they double from one to the next, up to `max_interval`."""
    max_interval: float = 10.0


@dataclass(frozen=True, slots=True)
class WasmCode:
    """A filter's code: already read, or `remote`. `filename` is as written (None when it was inline)."""

    data: bytes = field(repr=False)
    filename: str | None = None
    remote: RemoteCode | None = None

    @property
    def sha256(self) -> str:
        """The SHA-256 of the code, in hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest() if self.remote is None else self.remote.sha256


@dataclass(frozen=True, slots=True)
class WasmPlugin:
    """One plugin: a VM (vm_id, code, vm_configuration, environment) and what runs in it (the rest).

    `fail_open` is the deprecated boolean of the same name: unlike FAIL_OPEN it lets the trapping request
    itself continue. It is never set together with an explicit `failure_policy`.
    """

    name: str = ""
    root_id: str = ""
    vm_id: str = ""
    runtime: str = ""
    code: WasmCode = WasmCode(b"")
    vm_configuration: bytes = b""
    configuration: bytes = b""
    failure_policy: FailurePolicy = FailurePolicy.FAIL_CLOSED
    fail_open: bool = False
    reload_base_interval: float = 1.0
    """Back-off of FAIL_RELOAD: seconds before a new VM is tried."""
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    """Complete: host variables asked for with `host_env_keys` are already in it."""
    allow_on_headers_stop_iteration: bool = False
    allowed_capabilities: frozenset[str] | None = None
    """Names of host functions and callbacks the guest may use; None means all."""
    allow_precompiled: bool = False


@dataclass(frozen=True, slots=True)
class WasmFilter:
    """An HTTP or network filter that runs a wasm plugin. `name` is its free-text name in the chain."""

    name: str
    plugin: WasmPlugin
    disabled: bool = False
    """HTTP only: left out, except on routes that switch it on."""


@dataclass(frozen=True, slots=True)
class RouterFilter:
    """The end of every HTTP filter chain."""

    name: str = "envoy.filters.http.router"
    suppress_envoy_headers: bool = False
    """Leaves out `x-envoy-upstream-service-time` and `x-envoy-expected-rq-timeout-ms`."""


HttpFilter = WasmFilter | RouterFilter


# --- listeners ------------------------------------------------------------------------------------------


class CodecType(Enum):
    """The protocol a listener expects. Both mean HTTP/1.1 here; for HTTP2 and HTTP3 the loader warns."""

    AUTO = "AUTO"
    HTTP1 = "HTTP1"


class ServerHeaderTransformation(Enum):
    """What happens to the `server` response header."""

    OVERWRITE = "OVERWRITE"
    APPEND_IF_ABSENT = "APPEND_IF_ABSENT"
    PASS_THROUGH = "PASS_THROUGH"


class TrafficDirection(IntEnum):
    """The listener's direction; filters read it as property `listener_direction`."""

    UNSPECIFIED = 0
    INBOUND = 1
    OUTBOUND = 2


@dataclass(frozen=True, slots=True)
class Http2Options:
    """HTTP/2 towards upstreams. Windows are bytes that may come before the client has taken any."""

    max_concurrent_streams: int = 100
    """Of one connection, if the upstream does not want fewer."""
    initial_stream_window_size: int = 256 * 1024
    initial_connection_window_size: int | None = None
    """None: as much as all its streams may have, so that slow clients hold nobody else up."""


@dataclass(frozen=True, slots=True)
class Http1Options:
    """HTTP/1 details of one side of the proxy."""

    enable_trailers: bool = False
    """False drops trailers on this side."""
    accept_http_10: bool = False
    """Downstream only: False answers HTTP/1.0 with 426."""
    default_host_for_http_10: str = ""
    """Downstream only: the host of HTTP/1.0 requests that name none; empty refuses them with 400."""


@dataclass(frozen=True, slots=True)
class HttpConnectionManager:
    """How a listener speaks HTTP, and what it does with requests."""

    stat_prefix: str
    route_config: RouteConfig = field(default_factory=RouteConfig)
    http_filters: tuple[HttpFilter, ...] = ()
    """In request order; the last one is the router."""
    codec_type: CodecType = CodecType.AUTO
    server_name: str = "envoy"
    server_header_transformation: ServerHeaderTransformation = ServerHeaderTransformation.OVERWRITE
    http1: Http1Options = Http1Options()
    stream_idle_timeout: float | None = STREAM_IDLE_TIMEOUT
    request_headers_timeout: float | None = None
    """Seconds for the request headers to arrive; 408 beyond it."""
    idle_timeout: float | None = CONNECTION_IDLE_TIMEOUT
    max_request_headers_bytes: int = HEADERS_LIMIT
    max_headers_count: int = HEADERS_COUNT_LIMIT
    generate_request_id: bool = True
    access_logs: tuple[AccessLog, ...] = ()
    local_replies: LocalReplies | None = None
    forwarding: Forwarding = PLAIN_FORWARDING
    target: TargetRules = PLAIN_TARGET
    underscores: Underscores = Underscores.ALLOW
    always_set_request_id_in_response: bool = False
    request_timeout: float | None = None
    """Seconds for the whole request to arrive; 408 beyond it."""
    delayed_close_timeout: float | None = DELAYED_CLOSE_TIMEOUT
    """Seconds that a connection with unread input stays after the last response. None: not at all."""
    max_requests_per_connection: int | None = None
    max_connection_duration: float | None = None
    """Seconds after which a connection takes no further request."""
    drain_timeout: float = DRAIN_TIMEOUT
    """Seconds after those in which a client that sends nothing may still begin its last request."""
    upgrades: frozenset[str] = frozenset()
    """Protocols (lower case) to which requests may change unless their route says no."""
    possible_upgrades: frozenset[bytes] = frozenset()
    """These, and those that some route allows."""

    @property
    def envoy_headers(self) -> bool:
        """Whether the proxy tells upstreams and clients about itself in `x-envoy-*` fields."""
        return not any(
            isinstance(one, RouterFilter) and one.suppress_envoy_headers for one in self.http_filters
        )


@dataclass(frozen=True, slots=True)
class TcpProxy:
    """How a listener's connections go on to an upstream as they are."""

    stat_prefix: str
    clusters: tuple[tuple[str, int], ...]
    """Names and weights (above zero); each connection takes one of them at random."""
    idle_timeout: float | None = CONNECTION_IDLE_TIMEOUT
    """Seconds without a byte in either direction."""
    max_connect_attempts: int = 1
    access_logs: tuple[AccessLog, ...] = ()


@dataclass(frozen=True, slots=True)
class FilterChain:
    """What happens to a listener's connections: HTTP (`http`), or bytes as they come (`tcp`)."""

    http: HttpConnectionManager | None
    name: str = ""
    tcp: TcpProxy | None = None
    network_filters: tuple[WasmFilter, ...] = ()
    """Before the TCP proxy, in the order of the client's bytes."""
    tls: DownstreamTls | None = None
    server_names: tuple[str, ...] = ()
    """Which clients take it, by the name they ask for (exact, or `*.` and its end); none: all others."""
    handshake_timeout: float | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def plugins(self) -> tuple[WasmPlugin, ...]:
        """The wasm plugins of the chain, in the order of its filters."""
        filters = self.network_filters if self.http is None else self.http.http_filters
        return tuple(one.plugin for one in filters if isinstance(one, WasmFilter))


@dataclass(frozen=True, slots=True)
class Listener:
    """A port we listen on. Connections take the first filter chain, but with TLS the one of their name."""

    name: str
    address: Address
    filter_chains: tuple[FilterChain, ...]
    traffic_direction: TrafficDirection = TrafficDirection.UNSPECIFIED
    buffer_limit: int = BUFFER_LIMIT
    """`per_connection_buffer_limit_bytes`."""
    drain_modify_only: bool = False
    """Connections do not end because health checks are told to fail."""
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def http(self) -> HttpConnectionManager:
        """The connection manager of the chain that is used. ValueError when it has none (`tcp`)."""
        manager = self.filter_chains[0].http
        if manager is None:
            raise ValueError(f"listener {self.name} does not speak HTTP")
        return manager

    @property
    def tcp(self) -> TcpProxy | None:
        """The TCP proxy of the chain that is used; None when it speaks HTTP."""
        return self.filter_chains[0].tcp

    @property
    def kind(self) -> tuple[bool, bool]:
        """What its port must be made for: TCP, TLS."""
        first = self.filter_chains[0]
        return first.tcp is not None, first.tls is not None


# --- clusters -------------------------------------------------------------------------------------------


class ClusterType(Enum):
    """How the hosts of a cluster are found. The others of Envoy's kinds become STATIC without hosts."""

    STATIC = "STATIC"
    STRICT_DNS = "STRICT_DNS"  # every address a name resolves to is a host
    LOGICAL_DNS = "LOGICAL_DNS"  # one name; each new connection uses the first address of the latest answer


class DnsLookupFamily(Enum):
    """Which addresses of a name are wanted."""

    AUTO = "AUTO"  # IPv6 if there are any, else IPv4
    V4_ONLY = "V4_ONLY"
    V6_ONLY = "V6_ONLY"
    V4_PREFERRED = "V4_PREFERRED"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream host, or several of the same name."""

    address: Address
    hostname: str = ""
    weight: int = 1
    priority: int = 0
    """0 is used as long as enough of its hosts are healthy."""
    health_port: int | None = None
    """Where health checks go, if not to the same port."""
    health_hostname: str = ""
    healthy: bool = True
    """False: `health_status` takes it out."""
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group of upstream hosts. No hosts: 503 `no healthy upstream`."""

    name: str
    type: ClusterType = ClusterType.STATIC
    endpoints: tuple[Endpoint, ...] = ()
    connect_timeout: float = CONNECT_TIMEOUT
    dns_lookup_family: DnsLookupFamily = DnsLookupFamily.AUTO
    http1: Http1Options = Http1Options()
    http2: Http2Options | None = None
    """None: its hosts speak HTTP/1.1."""
    idle_timeout: float | None = CONNECTION_IDLE_TIMEOUT
    buffer_limit: int = BUFFER_LIMIT
    metadata: Mapping[str, object] = field(default_factory=dict)
    """`metadata.filter_metadata`, as filters read it under `xds.cluster_metadata`."""
    tls: UpstreamTls | None = None
    load_balancing: LoadBalancing = DEFAULT_BALANCING
    health_checks: tuple[HealthCheck, ...] = ()
    outlier_detection: OutlierDetection | None = None
    circuit_breaker: CircuitBreaker = DEFAULT_BREAKER
    high_circuit_breaker: CircuitBreaker = DEFAULT_BREAKER
    """For requests of high priority, which are counted apart."""

    @property
    def host_name(self) -> str:
        """The name of all its hosts; "" when they have several, or none."""
        by_name = self.type is not ClusterType.STATIC
        names = {one.hostname or (one.address.host if by_name else "") for one in self.endpoints}
        return names.pop() if len(names) == 1 else ""


# --- the whole ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """Something in the file that is understood but has no effect (or another one than in Envoy)."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}: {self.message}"


SNAPSHOTS_OFF, SNAPSHOTS_IN_MEMORY = "off", "memory"
"""What `Bootstrap.snapshots` may say besides the path of a folder."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Everything one configuration file says. Names of clusters are unique; routes name existing ones.

    `snapshots` (ours, from `node.metadata.pywasmvm`) says whether VMs start from snapshots of earlier ones:
    `off`, `memory` (those of this process), or a folder, where they are kept; "" is `off`, or `memory` where
    several workers serve. `store` (from there, too) names what keeps shared data, queues and metrics
    (`pywasmproxy.stores`); "" is one that all workers of this proxy share.
    """

    listeners: tuple[Listener, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    admin: Admin | None = None
    node: Node = Node()
    limits: Limits = field(default_factory=Limits)
    snapshots: str = ""
    store: str = ""
    services: tuple[WasmPlugin, ...] = ()
    """Plugins that run beside all streams."""
    stats: StatsConfig = DEFAULT_STATS
    honoured: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), compare=False, repr=False)
    """Messages with those of their fields that the file sets and that have their effect."""
    warnings: tuple[ConfigWarning, ...] = ()
    source_name: str = "<string>"
    files: tuple[str, ...] = ()
    """Paths of all files that were read: the configuration's own, filters, bodies."""
    document: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)
    """The configuration as it is written, for people to look at."""
    discovered: tuple[tuple[str, str, object], ...] = field(default=(), compare=False, repr=False)
    """Likewise what stands in files of its own: kind (`Cluster`, ...), the file's version, what it says."""

    def cluster(self, name: str) -> Cluster | None:
        """The cluster of that name, if there is one."""
        return next((cluster for cluster in self.clusters if cluster.name == name), None)
