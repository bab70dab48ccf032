"""Short forms for tests of typing rules: is this text a valid module, and if not, why and where."""

from __future__ import annotations

from pywasmvm.binary.decode import decode
from pywasmvm.errors import InvalidError
from pywasmvm.module import Module
from tests.support.wat import wat


def accepted(module: str | bytes) -> Module:
    """Decode and validate a module given as text or binary."""
    return Module(wat(module) if isinstance(module, str) else module)


def refusal(module: str | bytes) -> InvalidError:
    """The error of a module that is well-formed and invalid; fails if it is malformed or valid."""
    syntax = decode(wat(module) if isinstance(module, str) else module)
    try:
        Module.from_syntax(syntax)
    except InvalidError as error:
        return error
    raise AssertionError(f"accepted: {module!r}")


def accepted_body(body: str, types: str = "", fields: str = "") -> Module:
    """The module with one function: `types` its params, results and locals, `fields` what else there is."""
    return accepted(f"(module {fields} (func {types} {body}))")


def refused_body(message: str, body: str, types: str = "", fields: str = "") -> InvalidError:
    """The refusal of such a module; it must begin with `message` and name function 0 and a place."""
    error = refusal(f"(module {fields} (func {types} {body}))")
    if not str(error).startswith(message):
        raise AssertionError(f"{error} instead of {message}")
    if error.function != 0 or error.offset is None or error.instruction is None:
        raise AssertionError(f"{error!r} names no place")
    return error
