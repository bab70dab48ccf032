"""`typed_per_filter_config`: what routes say about single HTTP filters, by the filters' names.

All that has an effect is `FilterConfig` with `disabled`: the wasm filter takes no configuration per route (in
Envoy neither), and filters we do not have need none.
"""

from __future__ import annotations

from pywasmproxy.config.extension import resolve
from pywasmproxy.config.schema import Cursor, Message, anything, boolean, later

FILTER_CONFIG = Message(
    "envoy.config.route.v3.FilterConfig",
    {"config": later, "is_optional": anything, "disabled": boolean},
)

_WASM = "envoy.extensions.filters.http.wasm.v3.Wasm"


def per_filter(cursor: Cursor) -> dict[str, bool]:
    """Whether filters are disabled (True) or enabled (False) here, by name."""
    found: dict[str, bool] = {}
    for name, place in cursor.entries():
        if place.is_null:
            continue
        message, fields = resolve(place)
        if message == FILTER_CONFIG.name and fields is not None:
            values = FILTER_CONFIG.read(fields)
            if not {"config", "disabled"} & values.keys():
                place.fail(f"this says nothing about the filter {name!r}: it needs 'disabled' or 'config'")
            found[name] = values.get("disabled", False)
            inner: Cursor | None = values.get("config")
            message = resolve(inner)[0] if inner is not None and "disabled" not in values else None
        if message == _WASM:
            place.warn("wasm filters take no configuration per route: ignored")
    return found
