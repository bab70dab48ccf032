"""Parts of the bootstrap beside its resources: tags of statistics, wasm services.

Field tables after envoy.config.metrics.v3 and envoy.extensions.wasm.v3.
"""

from __future__ import annotations

from pywasmproxy.config.extension import resolve
from pywasmproxy.config.matchers import check_pattern
from pywasmproxy.config.model import WasmPlugin
from pywasmproxy.config.model_stats import StatsConfig, StatsTag
from pywasmproxy.config.plugins import plugin
from pywasmproxy.config.schema import Cursor, Message, anything, boolean, later, repeated, text

TAG = Message(
    "envoy.config.metrics.v3.TagSpecifier",
    {"tag_name": text, "regex": later, "fixed_value": text},
    one_of=("regex fixed_value",),
    required="tag_name",
)

STATS = Message(
    "envoy.config.metrics.v3.StatsConfig",
    {"stats_tags": repeated(later), "use_all_default_tags": boolean},
    ignored="stats_matcher histogram_bucket_settings",
)


def _tag(cursor: Cursor) -> StatsTag:
    values = TAG.read(cursor)
    place: Cursor | None = values.get("regex")
    pattern = None if place is None else text(place)
    if place is not None and pattern:
        check_pattern(pattern, place)
    return StatsTag(values["tag_name"], pattern or None, values.get("fixed_value"))


def stats_config(cursor: Cursor) -> StatsConfig:
    """A `StatsConfig`."""
    values = STATS.read(cursor)
    tags = tuple(_tag(place) for place in values.get("stats_tags", ()))
    return StatsConfig(tags, values.get("use_all_default_tags", True))


SERVICE = Message(
    "envoy.extensions.wasm.v3.WasmService",
    {"config": plugin, "singleton": anything},  # one worker has one VM of it in any case
    required="config",
)

EXTENSION = Message(
    "envoy.config.core.v3.TypedExtensionConfig",
    {"name": text, "typed_config": later, "config": later},
    legacy="config",
)

_SERVICES = (SERVICE.name, "envoy.config.wasm.v3.WasmService", "envoy.bootstrap.wasm")


def bootstrap_extensions(cursor: Cursor) -> tuple[WasmPlugin, ...]:
    """The plugins that run as services: without streams, with timers, queues and calls."""
    found: list[WasmPlugin] = []
    for place in cursor.items():
        values = EXTENSION.read(place)
        message, fields = resolve(values.get("typed_config"), values.get("config"))
        kind = message or values.get("name", "")
        if kind in _SERVICES and fields is not None:
            found.append(SERVICE.read(fields)["config"])
        else:
            place.warn(f"bootstrap extensions of kind {kind!r} are not supported: it is left out")
    return tuple(found)
