"""Writes a module and reads it again: what comes back must be the same module (`--round-trip`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pywasmvm.binary.decode import decode
from pywasmvm.binary.encode import encode
from pywasmvm.comparison import same
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.parser import parse_module
from pywasmvm.text.printer import print_module

RoundTrip = Callable[[ModuleSyntax, Iterable[str] | None], ModuleSyntax]


class RoundTripError(Exception):
    """A module came back different, or not at all."""


def through_binary(syntax: ModuleSyntax, features: Iterable[str] | None = None) -> ModuleSyntax:
    """Encode and decode. Raises RoundTripError."""
    return _checked(syntax, lambda: decode(encode(syntax), features=features))


def through_text(syntax: ModuleSyntax, features: Iterable[str] | None = None) -> ModuleSyntax:
    """Print and parse. Raises RoundTripError."""
    return _checked(syntax, lambda: parse_module(print_module(syntax), features=features))


ROUND_TRIPS: dict[str, RoundTrip] = {"binary": through_binary, "text": through_text}


def _checked(syntax: ModuleSyntax, again: Callable[[], ModuleSyntax]) -> ModuleSyntax:
    try:
        back = again()
    except Exception as error:  # a module that was well-formed has no reason not to be so now
        raise RoundTripError(f"the module did not come back: {type(error).__name__}: {error}") from error
    found = same(syntax, back)
    if found is not None:
        raise RoundTripError(f"the module came back different: {found}")
    return back
