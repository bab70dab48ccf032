"""What translated code depends on besides the function: part of the name under which it is kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Options:
    """Variants of the code.

    `poll` looks at the stop flag of the store in loops (`interrupt.py` says where that is needed); `fuel`
    counts units of fuel; `flat` uses the dispatcher instead of Python's own loops (`dispatch.py`); `small`
    says that no memory can ever have more than 1 GiB; `inline` puts small functions in place of their calls
    (`inline.py`); `quick` leaves out the copy of a function whose pointers are small and aligned
    (`versions.py`).
    """

    poll: bool = False
    fuel: bool = False
    flat: bool = False
    small: bool = False
    inline: bool = False
    quick: bool = False

    def __str__(self) -> str:
        return _name(self)


@functools.lru_cache(maxsize=64)
def _name(options: Options) -> str:
    return "+".join(field.name for field in fields(options) if getattr(options, field.name)) or "plain"
