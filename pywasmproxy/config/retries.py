"""Retry policies of routes and virtual hosts.

Field tables after envoy.config.route.v3 (route_components.proto). Conditions nobody knows are ignored, as
Envoy does, but with a warning.
"""

from __future__ import annotations

from typing import Any

from pywasmproxy.config.limits import suggest
from pywasmproxy.config.matchers import header_match
from pywasmproxy.config.model_routes import RetryPolicy
from pywasmproxy.config.schema import (
    UINT32,
    Cursor,
    Message,
    anything,
    duration,
    integer,
    later,
    positive_duration,
    repeated,
    text,
)
from pywasmproxy.sansio.retry import CONDITIONS, GRPC_CONDITIONS

BACK_OFF = Message(
    "envoy.config.route.v3.RetryPolicy.RetryBackOff",
    {"base_interval": positive_duration, "max_interval": positive_duration},
    required="base_interval",
)

PREDICATE = Message(
    "envoy.config.route.v3.RetryPolicy.RetryHostPredicate",
    {"name": text, "typed_config": anything, "config": anything},
    required="name",
    legacy="config",
)


def _predicate(cursor: Cursor) -> None:
    name: str = PREDICATE.read(cursor)["name"]
    if not name.endswith("previous_hosts"):  # the next host in turn is another one, if there is one
        cursor.warn("not supported yet, ignored")


RETRY_POLICY = Message(
    "envoy.config.route.v3.RetryPolicy",
    {
        "retry_on": later,
        "num_retries": UINT32,
        "per_try_timeout": duration,
        "retry_host_predicate": repeated(_predicate),
        "host_selection_retry_max_attempts": anything,
        "retriable_status_codes": repeated(integer(100, 999)),
        "retry_back_off": BACK_OFF.read,
        "retriable_headers": repeated(header_match),
        "retriable_request_headers": repeated(header_match),
    },
    ignored="per_try_idle_timeout retry_priority retry_options_predicates rate_limited_retry_back_off",
)


def _retry_on(cursor: Cursor) -> frozenset[str]:
    known = CONDITIONS | GRPC_CONDITIONS
    names = [name.strip() for name in text(cursor).split(",")]
    for name in names:
        if name and name not in known:
            guess = suggest(name, sorted(known))
            hint = f" (did you mean {guess!r}?)" if guess else ""
            cursor.warn(f"there is no retry condition {name!r}{hint}: ignored")
    return frozenset(names) & known


def retry_policy(cursor: Cursor) -> RetryPolicy:
    """A `RetryPolicy`."""
    values = RETRY_POLICY.read(cursor)
    back_off: dict[str, Any] = values.get("retry_back_off", {})
    base: float = back_off.get("base_interval", 0.025)
    most: float = back_off.get("max_interval", base * 10)
    if most < base:
        cursor.fail("retry_back_off.max_interval must not be less than base_interval")
    return RetryPolicy(
        retry_on=_retry_on(values["retry_on"]) if "retry_on" in values else frozenset(),
        num_retries=values.get("num_retries", 1),
        per_try_timeout=values.get("per_try_timeout") or None,
        retriable_status_codes=frozenset(values.get("retriable_status_codes", ())),
        retriable_headers=values.get("retriable_headers", ()),
        retriable_request_headers=values.get("retriable_request_headers", ()),
        base_interval=base,
        max_interval=most,
    )
