"""Runs a script, one command after the other, against any engine.

An assertion about a failure holds when the class of the failure is right; the messages of traps, exhaustion
and link errors must agree too (the suite's text comes first in ours), those of malformed and invalid modules
are compared and reported. An exception that is not one of `errors` is always a failure of the command.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pywasmvm.binary.decode import decode
from pywasmvm.errors import (
    Exhaustion,
    InvalidError,
    LinkError,
    MalformedError,
    Trap,
    WasmError,
    WasmException,
)
from pywasmvm.matching import matches
from pywasmvm.module import Module
from pywasmvm.runtime.func import Func
from pywasmvm.runtime.global_ import Global
from pywasmvm.runtime.instance import Extern, Instance
from pywasmvm.runtime.limits import StoreLimits
from pywasmvm.runtime.store import Store
from pywasmvm.script.commands import (
    Action,
    AssertFailure,
    AssertReturn,
    Command,
    Define,
    Get,
    Instantiate,
    Invoke,
    ModuleSource,
    QuotedModule,
    Register,
    TextModule,
    Unreadable,
)
from pywasmvm.script.match import mismatch
from pywasmvm.script.parse import Script, parse_script
from pywasmvm.script.results import Outcome, Results
from pywasmvm.script.roundtrip import ROUND_TRIPS
from pywasmvm.script.spectest import spectest
from pywasmvm.syntax import ModuleSyntax
from pywasmvm.text.parser import parse_module
from pywasmvm.types import ValType

#: What each assertion about a failure wants to see, the more special class before the one it belongs to.
_CLASSES: tuple[tuple[type[WasmError], str], ...] = (
    (MalformedError, "malformed"),
    (InvalidError, "invalid"),
    (LinkError, "unlinkable"),
    (Exhaustion, "exhaustion"),
    (Trap, "trap"),
    (WasmException, "exception"),
)

#: Of these the messages are compared, but need not agree.
_COMPARED = ("malformed", "invalid")

#: Deep enough for every legitimate recursion of the suite (200 calls), and soon exhausted.
_LIMITS = StoreLimits(call_depth=3000)


class ScriptError(Exception):
    """A command cannot be carried out: what it refers to is not there."""


class _NotLoaded(dict[str, Extern]):
    """Stands for the exports of a registered module that did not load: asking for one is no link error."""

    def get(self, name: str, default: Any = None) -> Any:
        """Raises ScriptError."""
        raise ScriptError("imports from a module that did not load")


class Runner:
    """The state of a running script: its store, instances, definitions and registered names.

    `engine` names what runs functions, `features` the proposals that modules may use (None: all),
    `round_trip` (`"binary"` or `"text"`) writes every module and reads it again before it is used.
    """

    def __init__(
        self,
        script: Script,
        *,
        engine: str = "auto",
        features: Iterable[str] | None = None,
        round_trip: str | None = None,
    ) -> None:
        self.script = script
        self.store = Store(_LIMITS, engine=engine)
        self.features = None if features is None else list(features)
        self.round_trip = None if round_trip is None else ROUND_TRIPS[round_trip]
        # The key None stands for the latest one. The value None: it did not load.
        self.instances: dict[str | None, Instance | None] = {}
        self.definitions: dict[str | None, Module | None] = {}
        self.registered: dict[str, dict[str, Extern]] = {"spectest": spectest(self.store)}

    def run(self, command: Command) -> Outcome:
        """Carry out one command."""
        try:
            if isinstance(command, AssertReturn):
                types, values = self.act(command.action)
                return Outcome(command.line, command.kind, mismatch(command.patterns, types, values))
            if isinstance(command, AssertFailure):
                return self.expect_failure(command)
            self.execute(command)
        except ScriptError as error:
            return Outcome(command.line, command.kind, str(error))
        except WasmError as error:
            return Outcome(command.line, command.kind, f"{class_of(error)}: {_first_line(error)}")
        except Exception as error:  # whatever it is, it is this command's failure
            return Outcome(command.line, command.kind, _describe(error))
        return Outcome(command.line, command.kind)

    # -- commands --------------------------------------------------------------------------------------

    def execute(self, command: Command) -> None:
        """A command that asserts nothing but that it works."""
        if isinstance(command, Define):
            self.define(command)
        elif isinstance(command, Instantiate):
            self.set_instance(command.name, None)
            module = _known(self.definitions, command.definition, "definition")
            self.set_instance(command.name, self.instantiate(module))
        elif isinstance(command, Register):
            self.registered[command.name] = _NotLoaded()
            instance = _known(self.instances, command.instance, "instance")
            self.registered[command.name] = dict(instance.exports)
        elif isinstance(command, Unreadable):
            raise ScriptError(command.reason)
        elif isinstance(command, Invoke | Get):
            self.act(command)

    def define(self, command: Define) -> None:
        """Load a module, and make an instance of it unless it is only a definition."""
        name = command.source.name
        self.set_definition(name, None)
        if command.instantiated:
            self.set_instance(name, None)
        module = self.load(command.source)
        self.set_definition(name, module)
        if command.instantiated:
            self.set_instance(name, self.instantiate(module))

    def expect_failure(self, command: AssertFailure) -> Outcome:
        """An assertion that something fails in a certain way."""
        wanted = command.kind.removeprefix("assert_").removesuffix("_custom")
        subject, expected = command.subject, command.message
        try:
            if isinstance(subject, Invoke | Get):
                self.act(subject)
            else:
                module = self.load(subject)
                if wanted not in _COMPARED:
                    self.instantiate(module)
        except WasmError as error:
            found = class_of(error)
            message = str(getattr(error, "message", error))
            if found != wanted:
                return Outcome(command.line, command.kind, f"expected {wanted}, got {found}: {message}")
            if wanted in _COMPARED:
                return Outcome(command.line, command.kind, None, expected, message)
            if expected is None or message.startswith(expected):
                return Outcome(command.line, command.kind)
            return Outcome(command.line, command.kind, f'expected "{expected}", got "{message}"')
        return Outcome(command.line, command.kind, f"expected {wanted} ({expected}), nothing failed")

    # -- what they need --------------------------------------------------------------------------------

    def set_instance(self, name: str | None, instance: Instance | None) -> None:
        """The latest instance, also known by its name."""
        self.instances[None] = self.instances[name] = instance

    def set_definition(self, name: str | None, module: Module | None) -> None:
        """The latest definition, also known by its name."""
        self.definitions[None] = self.definitions[name] = module

    def syntax(self, source: ModuleSource) -> ModuleSyntax:
        """Decode or parse. Raises MalformedError."""
        if isinstance(source, TextModule):
            syntax = self.script.parse(source, self.features)
        elif isinstance(source, QuotedModule):
            syntax = parse_module(source.text, features=self.features)
        else:
            syntax = decode(source.data, features=self.features)
        return syntax if self.round_trip is None else self.round_trip(syntax, self.features)

    def load(self, source: ModuleSource) -> Module:
        """Decode or parse, and validate. Raises MalformedError, InvalidError."""
        return Module.from_syntax(self.syntax(source))

    def instantiate(self, module: Module) -> Instance:
        """Link and initialise. Raises LinkError, Trap, WasmException."""
        return Instance(module, self.registered, store=self.store)

    def act(self, action: Action) -> tuple[tuple[ValType, ...], tuple[Any, ...]]:
        """Invoke a function or get a global: the types and the canonical values."""
        exports = _known(self.instances, action.instance, "instance").exports
        extern = exports.get(action.name)
        if isinstance(action, Get):
            if not isinstance(extern, Global):
                raise ScriptError(f"there is no exported global {action.name!r}")
            return (extern.type.value,), (extern.raw,)
        if not isinstance(extern, Func):
            raise ScriptError(f"there is no exported function {action.name!r}")
        type_ = extern.type
        if type_.params != action.types and not _may_pass(action.types, type_.params):
            raise ScriptError(f"{action.name!r} takes ({type_}), the arguments are {action.types}")
        returned = extern.raw(*action.arguments)
        results = type_.results
        if len(results) == 1:
            return results, (returned,)
        return results, returned if results else ()


def _known(space: dict[str | None, Any], name: str | None, what: str) -> Any:
    """What a name stands for; without a name the latest. Raises ScriptError."""
    found = space.get(name)
    if found is None:
        state = "did not load" if name in space else "is not known"
        raise ScriptError(f"the {what} {name or 'before'} {state}")
    return found


def _may_pass(given: tuple[ValType, ...], wanted: tuple[ValType, ...]) -> bool:
    return len(given) == len(wanted) and all(map(matches, given, wanted))


def class_of(error: WasmError) -> str:
    """The word of the script language for a kind of failure."""
    return next((word for class_, word in _CLASSES if isinstance(error, class_)), type(error).__name__)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _describe(error: BaseException) -> str:
    """An exception that should not have been, with the place it comes from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name}"
    return f"{type(error).__name__}: {_first_line(error) if isinstance(error, Exception) else ''}{place}"


def unreadable(error: Exception) -> Outcome:
    """The one outcome of a script that has no commands, because it cannot be read."""
    if isinstance(error, MalformedError):
        return Outcome(error.line or 1, "script", f"malformed: {error.message}")
    return Outcome(1, "script", _describe(error))


def run_script(
    source: bytes,
    *,
    engine: str = "auto",
    features: Iterable[str] | None = None,
    round_trip: str | None = None,
) -> Iterator[Outcome]:
    """The outcome of each command of a script, one by one; for the parameters see `run_file`.

    Raises MalformedError when the text does not fall into commands.
    """
    script = parse_script(source)
    runner = Runner(script, engine=engine, features=features, round_trip=round_trip)
    return map(runner.run, script.commands)


def run_file(
    path: str | os.PathLike[str],
    *,
    engine: str = "auto",
    features: Iterable[str] | None = None,
    round_trip: str | None = None,
) -> Results:
    """Run the commands of a `.wast` file; what they do never raises here.

    `engine` is a name that `Store` knows, `features` the proposals that modules may use (None: all). With
    `round_trip` every module goes through an encoding before it is used: `"binary"` encodes and decodes it,
    `"text"` prints and parses it; either way it must come back equal. Raises OSError.
    """
    begin = time.perf_counter()
    source = Path(path).read_bytes()
    results = Results(os.fspath(path))
    try:
        for outcome in run_script(source, engine=engine, features=features, round_trip=round_trip):
            results.commands += 1
            results.add(outcome)
    except Exception as error:
        results.commands += 1
        results.add(unreadable(error))
    results.seconds = time.perf_counter() - begin
    return results
