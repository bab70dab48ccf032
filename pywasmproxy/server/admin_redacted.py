"""A configuration as it may be seen: without secrets, and without megabytes of code written into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_SECRET = frozenset(
    ("private_key", "password", "session_ticket_keys", "pkcs12", "generic_secret", "hmac_secret", "secret")
)
"""Fields whose content is not shown, in whatever spelling."""

LONGEST_TEXT = 4096
"""Characters of a text that are shown: code may be written into a configuration."""


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def shown(value: Any) -> Any:
    """A configuration as it may be seen: without secrets and without megabytes."""
    if isinstance(value, Mapping):
        return {
            str(key): _redacted(child) if snake(str(key)) in _SECRET else shown(child)
            for key, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [shown(child) for child in value]
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"[{len(value)} characters]"
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _redacted(value: Any) -> Any:
    """The form of a secret: Envoy keeps it, too."""
    if isinstance(value, Mapping):
        return {str(key): _redacted(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(child) for child in value]
    return REDACTED
