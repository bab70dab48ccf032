"""What a configuration comes to, for people: the fields that have their effect, and those that have none."""

from __future__ import annotations

import textwrap

from pywasmproxy.config.model import Bootstrap


def report(bootstrap: Bootstrap) -> str:
    """Several lines: messages with their honoured fields, then every ignored place with the reason."""
    lines = [f"configuration '{bootstrap.source_name}' OK", "honoured:"]
    for title, names in bootstrap.honoured:
        listed = f"{title}: {', '.join(names)}"
        lines += textwrap.wrap(
            listed, 100, initial_indent="  ", subsequent_indent="    ", break_long_words=False
        )
    if not bootstrap.warnings:
        return "\n".join([*lines, "ignored: nothing"])
    lines.append("ignored:")
    lines += [f"  line {one.line}: {one.path}: {one.message}" for one in bootstrap.warnings]
    return "\n".join(lines)
