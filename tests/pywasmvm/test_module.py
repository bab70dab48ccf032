"""`Module`: loading, looking inside, lazy validation, features."""

from __future__ import annotations

from pathlib import Path

import pytest

from pywasmvm import (
    FuncType,
    GlobalType,
    Instance,
    InvalidError,
    Limits,
    MalformedError,
    MemoryType,
    Module,
    TableType,
    Trap,
    decode,
    validate,
)
from pywasmvm.types import FUNCREF, I32, I64
from tests.support import binary as b
from tests.support.wat import wat

TEXT = """(module $app
  (import "env" "log" (func $log (param i32)))
  (import "env" "mem" (memory 1))
  (func $main (export "main") (result i32) i32.const 1)
  (func (export "named by export"))
  (func)
  (global (export "g") (mut i64) (i64.const 0))
  (table (export "t") 2 funcref)
  (export "mem" (memory 0)))"""


def test_exports_and_imports_by_name() -> None:
    module = Module(wat(TEXT))
    assert dict(module.exports) == {
        "main": FuncType((), (I32,)),
        "named by export": FuncType(),
        "g": GlobalType(I64, True),
        "t": TableType(FUNCREF, Limits(2)),
        "mem": MemoryType(Limits(1)),
    }
    assert next(iter(module.exports)) == "main"
    assert dict(module.imports) == {("env", "log"): FuncType((I32,)), ("env", "mem"): MemoryType(Limits(1))}
    assert [(i.module, i.name) for i in module.import_list] == [("env", "log"), ("env", "mem")]
    with pytest.raises(TypeError):
        module.exports["new"] = FuncType()  # type: ignore[index]


def test_functions_by_index_and_name() -> None:
    module = Module(wat(TEXT))
    functions = module.functions
    assert len(functions) == 4
    assert list(functions) == [0, 1, 2, 3]
    assert [functions[n].name for n in functions] == ["log", "main", "named by export", "func[3]"]
    main = functions["main"]
    assert main.index == 1
    assert main.type == FuncType((), (I32,))
    assert [str(instr) for instr in main.body] == ["i32.const 1", "end"]
    assert functions["log"].body == ()
    assert repr(main) == "<function main: -> i32>"
    for missing in ("nobody", 4, -1):
        with pytest.raises(KeyError):
            functions[missing]


def test_the_name_of_a_module(tmp_path: Path) -> None:
    named, anonymous = wat("(module $app)"), b.HEADER
    path = tmp_path / "file.wasm"
    path.write_bytes(anonymous)
    assert Module(named).name == "app"
    assert Module(named, name="mine").name == "mine"
    assert Module(anonymous).name == "wasm"
    assert Module.from_file(path).name == "file"
    assert Module.from_file(path, name="mine").name == "mine"
    path.write_bytes(named)
    assert Module.from_file(path).name == "app"
    assert repr(Module.from_file(path)) == "<Module app: 0 functions>"
    with pytest.raises(FileNotFoundError):
        Module.from_file(tmp_path / "nothing.wasm")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind(kind: type) -> None:
    data = wat(TEXT)
    assert len(Module(kind(data)).exports) == len(Module.from_bytes(kind(data)).exports) == 5


def test_later_changes_of_the_bytes_do_not_matter() -> None:
    data = bytearray(wat('(module (func (export "f") (result i32) i32.const 7))'))
    module = Module(data, validate="lazy")
    data[:] = bytes(len(data))
    assert Instance(module).exports.f() == 7


def test_custom_sections() -> None:
    module = Module(b.module(b.custom("a", b"1"), b.custom("b", b"2"), b.custom("a", b"3")))
    assert dict(module.custom_sections) == {"a": b"3", "b": b"2"}


class TestLazyValidation:
    GOOD = b.body(b"\x41\x07")
    INVALID = b.body(b"\x42\x07")
    MALFORMED = b.body(b"\x27")

    def module(self, second: bytes) -> bytes:
        return b.module(
            b.types(b.functype(b"", b.I32)),
            b.functions(0, 0, 0),
            b.exports(b.export("good", 0, 0), b.export("bad", 0, 1), b.export("calls", 0, 2)),
            b.code(self.GOOD, second, b.body(b"\x41\1\x10\1\x6a")),
        )

    def test_eager_refuses_at_once(self) -> None:
        with pytest.raises(InvalidError) as caught:
            Module(self.module(self.INVALID))
        assert caught.value.function == 1
        with pytest.raises(MalformedError):
            Module(self.module(self.MALFORMED))

    @pytest.mark.parametrize(("body", "error"), [(INVALID, InvalidError), (MALFORMED, MalformedError)])
    def test_lazy_refuses_before_the_first_run(self, body: bytes, error: type[Exception]) -> None:
        guest = Instance(Module(self.module(body), validate="lazy"))
        assert guest.exports.good() == 7
        for _ in range(2):
            with pytest.raises(error):
                guest.exports.bad()
            with pytest.raises(error) as caught:
                guest.exports.calls()
            assert any("wasm backtrace" in note for note in caught.value.__notes__)
        assert guest.exports.good() == 7

    def test_all_bodies_can_be_checked_later(self) -> None:
        with pytest.raises(InvalidError):
            Module(self.module(self.INVALID), validate="lazy").validate_bodies()
        Module(self.module(self.GOOD), validate="lazy").validate_bodies()

    def test_everything_but_bodies_is_checked_at_once(self) -> None:
        with pytest.raises(InvalidError, match="unknown function"):
            Module(wat('(module (export "f" (func 3)))'), validate="lazy")
        with pytest.raises(InvalidError):
            Module(wat("(module (global i32 (i64.const 0)))"), validate="lazy")

    def test_malformed_comes_before_invalid(self) -> None:
        data = b.module(b.types(b.functype()), b.functions(0, 0), b.code(b.body(b"\x1a"), self.MALFORMED))
        with pytest.raises(MalformedError, match="illegal opcode"):
            Module(data)

    def test_the_word_is_checked(self) -> None:
        with pytest.raises(ValueError, match="'eager' or 'lazy', not 'never'"):
            Module(b.HEADER, validate="never")  # type: ignore[arg-type]


def test_text_is_parsed_where_it_is_meant() -> None:
    text = '(module (func (export "f") (result i32) i32.const 7))'
    for given in (text, text.encode(), b"\n;; a comment\n" + text.encode()):
        assert list(Module(given).exports) == ["f"]
    assert Module.from_text(text).to_bytes() == Module(Module(text).to_bytes()).to_bytes()
    assert Module(Module(text).to_text()).to_bytes() == Module(text).to_bytes()
    with pytest.raises(MalformedError, match="magic header not detected"):
        Module(b"this is neither")


def test_errors_in_text_have_a_line_and_a_column() -> None:
    with pytest.raises(MalformedError) as malformed:
        Module("(module\n  (func i32.cons))")
    assert (malformed.value.line, malformed.value.column) == (2, 9)
    with pytest.raises(InvalidError) as invalid:
        Module("(module\n  (func\n    i32.add))")
    assert (invalid.value.line, invalid.value.column, invalid.value.function) == (3, 5, 0)
    assert "line 3, column 5" in str(invalid.value)


def test_a_module_goes_to_text_and_back() -> None:
    module = Module(wat(TEXT))
    again = Module(module.to_text())
    assert again.to_text() == module.to_text()
    assert dict(again.exports) == dict(module.exports)


def test_decode_and_validate_in_two_steps() -> None:
    syntax = decode(wat(TEXT))
    module = validate(syntax)
    assert module.syntax is syntax
    broken = decode(wat("(module (func drop))"))
    with pytest.raises(InvalidError, match="nothing on stack"):
        validate(broken)


def test_features_can_be_switched_off() -> None:
    data = wat('(module (func (export "f") (result i32) i32.const 200 i32.extend8_s))')
    assert Instance(Module(data, features=["sign-extension"])).exports.f() == -56
    with pytest.raises(MalformedError, match="illegal opcode c0"):
        Module(data, features=["multi-value"])


def test_an_uncalled_trap_costs_nothing() -> None:
    module = Module(wat('(module (func (export "f") unreachable))'))
    guest = Instance(module)
    assert not module.prepared
    with pytest.raises(Trap):
        guest.exports.f()
    assert module.prepared
