"""Small hand-written guests for server tests, as WebAssembly text."""

from __future__ import annotations

import base64
from functools import cache

from tests.support.wat import wat

_SHELL = """
(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
  (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
  (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
  (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "x-guestyes")
  (data (i32.const 64) "a line")
  (global $id (mut i32) (i32.const 0))
  (global $ticks (mut i32) (i32.const 0))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 1024))
  (func $mark (drop (call $add (i32.const 2) (i32.const 16) (i32.const 7) (i32.const 23) (i32.const 3))))
  %s
)
"""

GUESTS = {
    "mark": """(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $mark) (i32.const 0))""",
    "trap": '(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (unreachable))',
    "trap_late": '(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (unreachable))',
    "loop": """(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (loop (br 0)) (i32.const 0))""",
    "recurse": """(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $deep))""",
    "leak": """(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (drop (memory.grow (i32.const 1))) (call $mark) (i32.const 0))""",
    "wait": """(func (export "proxy_on_request_headers") (param $c i32) (param i32 i32) (result i32)
          (global.set $id (local.get $c))
          (drop (call $period (i32.const 20)))
          (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
          (if (i32.eq (global.get $ticks) (i32.const 3)) (then
            (drop (call $period (i32.const 0)))
            (drop (call $effective (global.get $id)))
            (drop (call $continue (i32.const 0))))))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $mark) (i32.const 0))""",
    "wait_and_trap": """(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $period (i32.const 50))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) (unreachable))""",
    # Its start-up leaves a trace that the guest shows, and traps in a second run.
    "once": """(func (export "_initialize")
          (if (i32.load (i32.const 128)) (then (unreachable)))
          (memory.copy (i32.const 23) (i32.const 64) (i32.const 3))
          (i32.store (i32.const 128) (i32.const 1)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
          (if (i32.eq (global.get $ticks) (i32.const 2)) (then (unreachable)))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $mark) (i32.const 0))""",
    "unkept": """(global (mut anyref) (array.new_default $bytes (i32.const 3)))
        (type $bytes (array i8))""",
    "pause": '(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))',
    "refuse": '(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))',
    "clock": """(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
          (drop (call $period (i32.const 20))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (drop (call $log (i32.const 2) (i32.const 64) (i32.const 6))))""",
    "farewell": """(func (export "proxy_on_delete") (param i32)
        (drop (call $log (i32.const 2) (i32.const 64) (i32.const 6))))""",
}


@cache
def guest(name: str) -> bytes:
    """A guest's module."""
    return wat(_SHELL % GUESTS[name])


def wasm_filter(name: str, *, plugin: str = "", vm_id: str = "", runtime: str = "v8", more: str = "") -> str:
    """The configuration of an HTTP filter with this guest."""
    code = base64.b64encode(guest(name)).decode()
    return f"""
- name: envoy.filters.http.wasm
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
    config:
      name: "{plugin or name}"
      root_id: ""
      {more}
      vm_config:
        vm_id: "{vm_id}"
        runtime: envoy.wasm.runtime.{runtime}
        code: {{local: {{inline_bytes: "{code}"}}}}
"""
