"""Tags of a configuration (`stats_config`) applied to statistics: labels for Prometheus, out of the names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from pywasmproxy.config.model_stats import StatsConfig, StatsTag
from pywasmproxy.stats.stat import Labels, Stat


class Tagging:
    """The tags of one configuration, made ready."""

    def __init__(self, config: StatsConfig) -> None:
        self._default = config.default_tags
        self._fixed: Labels = tuple(
            (tag.name, tag.fixed_value) for tag in config.tags if tag.fixed_value is not None
        )
        self._found = [(tag, re.compile(tag.regex)) for tag in config.tags if tag.regex is not None]

    def apply(self, stats: Iterable[Stat]) -> list[Stat]:
        """The statistics with these labels, too. What a regex finds leaves the name."""
        if self._default and not self._fixed and not self._found:
            return list(stats)
        return [self._tagged(stat) for stat in stats]

    def _tagged(self, stat: Stat) -> Stat:
        short, labels = stat.short, stat.labels
        if not self._default and not stat.custom:
            short, labels = stat.name, ()
        for tag, expression in self._found:
            short, labels = self._take(tag, expression, stat.name, short, labels)
        return replace(stat, short=short, labels=(*labels, *self._fixed))

    @staticmethod
    def _take(
        tag: StatsTag, expression: re.Pattern[str], name: str, short: str, labels: Labels
    ) -> tuple[str, Labels]:
        found = expression.search(name)
        if found is None or not expression.groups or found[1] is None:
            return short, labels
        value = found[2] if expression.groups > 1 and found[2] is not None else found[1]
        return short.replace(found[1], "", 1), (
            *(one for one in labels if one[0] != tag.name),
            (tag.name, value),
        )
