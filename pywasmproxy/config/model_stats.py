"""How statistics are named apart. After envoy.config.metrics.v3."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StatsTag:
    """A tag of statistics: a fixed value, or what `regex` finds in a name.

    Its first group goes out of the name, the second one (or the first, if it is the only one) is the value.
    """

    name: str
    regex: str | None = None
    fixed_value: str | None = None


@dataclass(frozen=True, slots=True)
class StatsConfig:
    """The tags, those that Envoy knows by itself included if `default_tags`."""

    tags: tuple[StatsTag, ...] = ()
    default_tags: bool = True


DEFAULT_STATS = StatsConfig()
