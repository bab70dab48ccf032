"""`ConfigError`: why a configuration is refused, and where: file, line, path inside the file, suggestion."""

from __future__ import annotations


class ConfigError(Exception):
    """A configuration that cannot be used.

    `line` counts from 1 (0: the whole file); `path` is `static_resources.listeners[0].address` and the like
    ("" at the top); `suggestion` is what was probably meant, or None.
    """

    def __init__(self, file: str, line: int, path: str, message: str, suggestion: str | None = None) -> None:
        self.file = file
        self.line = line
        self.path = path
        self.message = message
        self.suggestion = suggestion
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        path = f"{self.path}: " if self.path else ""
        hint = f" (did you mean {self.suggestion!r}?)" if self.suggestion else ""
        return f"{where}: {path}{self.message}{hint}"
