"""`pywasmvm filter run`: output, JSON, exit status."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abi.proxy_wasm import run
from abi.proxy_wasm.wire import encode_map
from tests.support.wat import wat

IMPORTS = {
    "log": ("proxy_log", "(param i32 i32 i32) (result i32)"),
    "add": ("proxy_add_header_map_value", "(param i32 i32 i32 i32 i32) (result i32)"),
    "remove": ("proxy_remove_header_map_value", "(param i32 i32 i32) (result i32)"),
    "set": ("proxy_set_buffer_bytes", "(param i32 i32 i32 i32 i32) (result i32)"),
    "local": ("proxy_send_local_response", "(param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)"),
    "continue": ("proxy_continue_stream", "(param i32) (result i32)"),
    "close": ("proxy_close_stream", "(param i32) (result i32)"),
    "env": ("environ_sizes_get", "(param i32 i32) (result i32)"),
}
TYPES = {"headers": 3, "body": 3, "trailers": 2, "configure": 2, "vm_start": 2}


def built(**callbacks: str) -> bytes:
    """A filter of callbacks, each given as the expression that is its result."""
    imports = [
        f'(import "{"wasi_unstable" if name == "env" else "env"}" "{call}" (func ${name} {types}))'
        for name, (call, types) in IMPORTS.items()
    ]
    functions = []
    for name, body in callbacks.items():
        parameters = "i32 " * TYPES[name.removeprefix("request_").removeprefix("response_")]
        functions.append(f'(func (export "proxy_on_{name}") (param {parameters}) (result i32) {body})')
    fields = encode_map([(b"x-l", b"1")]).hex()
    escaped = "".join(f"\\{fields[i : i + 2]}" for i in range(0, len(fields), 2))
    return wat(
        f'(module {" ".join(imports)} (memory (export "memory") 1)'
        ' (func (export "proxy_abi_version_0_2_0"))'
        ' (func (export "malloc") (param i32) (result i32) (i32.const 8192))'
        ' (data (i32.const 0) "x-added") (data (i32.const 16) "yes!") (data (i32.const 32) "x-gone")'
        f' (data (i32.const 64) "{escaped}") {" ".join(functions)})'
    )


def call(name: str, *numbers: int, result: int = 0) -> str:
    arguments = " ".join(f"(i32.const {number})" for number in numbers)
    return f"(block (result i32) (drop (call ${name} {arguments})) (i32.const {result}))"


ADD_TO_RESPONSE = call("add", 2, 0, 7, 16, 4)
LOCAL = call("local", 403, 0, 0, 16, 4, 64, len(encode_map([(b"x-l", b"1")])), -1, result=1)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the sub-command on a filter of these callbacks: exit status, standard output, standard error."""

    def go(arguments: list[str], code: bytes | None = None, **callbacks: str) -> tuple[int, str, str]:
        path = tmp_path / "filter.wasm"
        path.write_bytes(built(**callbacks) if code is None else code)
        parser = argparse.ArgumentParser()
        run.configure(parser)
        status = run.run(parser.parse_args(["run", str(path), *arguments]))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return go


def test_headers_before_and_after(cli: Any) -> None:
    status, out, err = cli(
        ["-H", "x-key: 1", "--path", "/p", "--response-header", "X-Gone: 1", "--response-body", "Hello"],
        response_headers=f"(drop {ADD_TO_RESPONSE}) {call('remove', 2, 32, 6)}",
    )
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "request headers",
        "    :authority: localhost",
        "    :path: /p",
        "    :method: GET",
        "    :scheme: http",
        "    x-key: 1",
        "response headers",
        "    :status: 200",
        "  - x-gone: 1",
        "  + x-added: yes!",
        "response body: 5 bytes, unchanged",
        "callbacks",
        "    request headers: continue",
        "    response headers: continue",
        "    response body: continue",
    ]


def test_bodies_trailers_and_logs(cli: Any) -> None:
    status, out, _ = cli(
        [
            *("--body", "abc", "--trailer", "t: 1", "--response-body", "Hello", "--response-trailer", "u: 2"),
            *("--name", "n", "--root-id", "r", "--vm-id", "v", "--log-level", "info"),
        ],
        request_body=call("set", 0, 0, 99, 16, 4),
        request_trailers=call("add", 1, 0, 7, 16, 4),
        response_trailers=call("log", 2, 16, 4),
        response_headers=call("log", 1, 16, 4),
    )
    assert status == 0
    assert out.splitlines()[5:] == [
        "request body: 3 bytes became 4",
        "  + yes!",
        "request trailers",
        "    t: 1",
        "  + x-added: yes!",
        "response headers",
        "    :status: 200",
        "response body: 5 bytes, unchanged",
        "response trailers",
        "    u: 2",
        "callbacks",
        "    request headers: continue",
        "    request body: continue",
        "    request trailers: continue",
        "    response headers: continue",
        "    response body: continue",
        "    response trailers: continue",
        "log",
        "    info     wasm log n r v: yes!",
    ]
    assert "    :method: POST" in out.splitlines()


def result(cli: Any, arguments: list[str], **callbacks: str) -> dict[str, Any]:
    status, out, _ = cli(["--json", *arguments], **callbacks)
    assert status == 0
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def test_json(cli: Any) -> None:
    facts = result(
        cli, ["--status", "204", "--method", "PUT", "--authority", "a"], response_headers=ADD_TO_RESPONSE
    )
    assert facts["abi_version"] == "0.2.0"
    assert facts["outcome"] == "complete"
    assert facts["request"]["headers"][0] == [":authority", "a"]
    assert facts["request"]["headers"][2] == [":method", "PUT"]
    assert facts["response"]["headers_before"] == [[":status", "204"]]
    assert facts["response"]["headers"] == [[":status", "204"], ["x-added", "yes!"]]
    assert facts["actions"] == [["request headers", "continue"], ["response headers", "continue"]]
    assert facts["local_response"] is None
    assert facts["logs"] == []


def test_a_local_response_passes_the_filters_own_response_side(cli: Any) -> None:
    facts = result(cli, [], request_headers=LOCAL, response_headers=ADD_TO_RESPONSE)
    assert facts["local_response"] == {
        "status": 403,
        "details": "",
        "body": "yes!",
        "headers": [["x-l", "1"]],
        "grpc_status": None,
    }
    assert facts["response"]["headers"] == [[":status", "403"], ["x-l", "1"], ["x-added", "yes!"]]
    assert facts["response"]["body"] == "yes!"
    assert [name for name, _ in facts["actions"]] == ["request headers", "response headers", "response body"]


def test_a_local_response_to_a_response_is_not_shown_to_the_filter(cli: Any) -> None:
    facts = result(cli, ["--response-body", "x"], response_headers=LOCAL)
    assert facts["response"]["headers"] == [[":status", "403"], ["x-l", "1"]]
    assert [name for name, _ in facts["actions"]] == ["request headers", "response headers"]


def test_a_pause_leaves_the_exchange_there(cli: Any) -> None:
    facts = result(cli, ["--body", "x"], request_headers="(i32.const 1)")
    assert facts["outcome"] == "paused"
    assert facts["actions"] == [["request headers", "stop all and watermark"]]
    assert facts["response"] is None
    out = cli([], request_headers="(i32.const 1)")[1]
    assert "the exchange is paused" in out.splitlines()


def test_a_pause_that_is_continued_at_once(cli: Any) -> None:
    facts = result(cli, [], request_headers=call("continue", 0, result=1))
    assert facts["outcome"] == "complete"


def test_holding_only_the_headers(cli: Any) -> None:
    options = ["--allow-on-headers-stop-iteration", "--body", "x"]
    facts = result(cli, options, request_headers="(i32.const 1)")
    assert facts["outcome"] == "complete"
    assert facts["actions"][:2] == [["request headers", "stop iteration"], ["request body", "continue"]]


def test_closing(cli: Any) -> None:
    facts = result(cli, [], request_headers=call("close", 0))
    assert facts["outcome"] == "closed"
    assert facts["response"] is None


def test_trailers_made_by_the_filter(cli: Any) -> None:
    facts = result(cli, ["--response-body", "x"], response_body=call("add", 3, 0, 7, 16, 4))
    assert facts["response"]["trailers"] == [["x-added", "yes!"]]


def test_a_trap(cli: Any) -> None:
    status, out, err = cli([], response_headers="unreachable")
    assert status == 134
    assert "the exchange is failed" in out.splitlines()
    assert err.endswith("Function: proxy_on_response_headers failed: Uncaught RuntimeError: unreachable\n")


def test_an_endless_loop_is_stopped(cli: Any) -> None:
    status, _, err = cli(["--seconds", "0.2"], request_headers="(loop (br 0)) (unreachable)")
    assert status == 134
    assert "deadline exceeded" in err


def test_a_refused_filter(cli: Any) -> None:
    status, out, err = cli([], configure=call("log", 4, 16, 4), request_headers="(i32.const 0)")
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == "wasm log: yes!"
    assert lines[1].endswith("filter.wasm: Wasm VM failed Failed to configure base Wasm plugin")


def test_a_configured_filter(cli: Any) -> None:
    check = "(i32.eq (local.get 1) (i32.const {}))"
    status, _, _ = cli(
        ["--config", "abc", "--vm-config", "de", "--env", "A=b"],
        configure=check.format(3),
        vm_start=f"(drop (call $env (i32.const 128) (i32.const 132))) (i32.and {check.format(2)} "
        "(i32.and (i32.eq (i32.load (i32.const 128)) (i32.const 1))"
        " (i32.eq (i32.load (i32.const 132)) (i32.const 4))))",
    )
    assert status == 0


def test_garbage_and_missing_files(cli: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([], b"not wasm at all")[0] == 1
    assert "Failed to parse corrupted Wasm module" in cli([], b"not wasm at all")[2]
    parser = argparse.ArgumentParser()
    run.configure(parser)
    assert run.run(parser.parse_args(["run", str(tmp_path / "nope.wasm")])) == 1
    assert "nope.wasm: No such file or directory" in capsys.readouterr().err


def test_values_from_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff{}")
    assert run.data(f"@{path}") == b"\xff{}"
    assert run.data("text") == b"text"
    with pytest.raises(argparse.ArgumentTypeError, match="No such file"):
        run.data("@/nowhere/at/all")


@pytest.mark.parametrize(
    ("text", "pair"),
    [("a: b", ("a", "b")), ("a:b:c", ("a", "b:c")), (":path: /x", (":path", "/x")), ("a:", ("a", ""))],
)
def test_header_arguments(text: str, pair: tuple[str, str]) -> None:
    assert run.field(text) == pair


@pytest.mark.parametrize("text", ["a", ": b", "", ":path"])
def test_bad_header_arguments(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        run.field(text)


def test_environment_arguments() -> None:
    assert run.variable("A=b=c") == ("A", "b=c")
    for text in ("A", "=b"):
        with pytest.raises(argparse.ArgumentTypeError):
            run.variable(text)


@pytest.mark.parametrize(
    "arguments", [[], ["run"], ["run", "x.wasm", "-H", "bad"], ["run", "x", "--status", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    run.configure(parser)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(arguments)
    assert caught.value.code == 2


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys, argparse; from abi.proxy_wasm import run; run.configure(argparse.ArgumentParser());"
        "print([name for name in ('numpy', 'abi.hostcall', 'pywasmvm.runtime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
