"""The TCP proxy: which clusters a listener's connections go to.

Field tables after envoy.extensions.filters.network.tcp_proxy.v3.
"""

from __future__ import annotations

from pywasmproxy.config.access_log import access_logs
from pywasmproxy.config.model import CONNECTION_IDLE_TIMEOUT, TcpProxy
from pywasmproxy.config.schema import Cursor, Message, integer, later, repeated, text, timeout

_NAME = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_WEIGHT = integer(1, (1 << 32) - 1)

WEIGHT = Message(
    f"{_NAME}.WeightedCluster.ClusterWeight",
    {"name": later, "weight": _WEIGHT},
    ignored="metadata_match",
)

WEIGHTED = Message(f"{_NAME}.WeightedCluster", {"clusters": repeated(later)})

TCP_PROXY = Message(
    _NAME,
    {
        "stat_prefix": text,
        "cluster": later,
        "weighted_clusters": WEIGHTED.read,
        "idle_timeout": timeout,
        "max_connect_attempts": integer(1, (1 << 32) - 1),
        "access_log": access_logs,
    },
    ignored="on_demand metadata_match downstream_idle_timeout upstream_idle_timeout "
    "backoff_options hash_policy "
    "max_downstream_connection_duration max_downstream_connection_duration_jitter_percentage "
    "access_log_flush_interval flush_access_log_on_connected access_log_options proxy_protocol_tlvs "
    "upstream_connect_mode max_early_data_bytes deprecated_v1",
    notes={"tunneling_config": "not supported yet: bytes go to the upstream without a tunnel"},
    harmless={"upstream_connect_mode": ("IMMEDIATE",)},
    one_of=("cluster weighted_clusters",),
    required="stat_prefix",
    legacy="deprecated_v1",
)


def _cluster(cursor: Cursor) -> str:
    name = text(cursor)
    if not name:
        cursor.fail("the name of a cluster is needed")
    cursor.context.tcp_cluster_references.append((name, cursor))
    return name


def tcp_proxy(cursor: Cursor) -> TcpProxy:
    """A `TcpProxy`."""
    values = TCP_PROXY.read(cursor)
    clusters: list[tuple[str, int]] = []
    if "cluster" in values:
        clusters.append((_cluster(values["cluster"]), 1))
    for place in values.get("weighted_clusters", {}).get("clusters", ()):
        entry = WEIGHT.read(place)
        for needed in ("name", "weight"):
            if needed not in entry:
                place.fail(f"a weighted cluster needs {needed!r}")
        clusters.append((_cluster(entry["name"]), entry["weight"]))
    if not clusters:
        cursor.fail("the TCP proxy needs 'cluster' or 'weighted_clusters'")
    return TcpProxy(
        stat_prefix=values["stat_prefix"],
        clusters=tuple(clusters),
        idle_timeout=values.get("idle_timeout", CONNECTION_IDLE_TIMEOUT),
        max_connect_attempts=values.get("max_connect_attempts", 1),
        access_logs=values.get("access_log", ()),
    )
