;; Tail calls whose callee is not a function of the same module: the frame of the caller is gone, so results go
;; to whoever called it, and a handler of the caller does not guard the callee.

(module $callee
  (tag $t (export "t"))
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "throw") (result i32) (throw $t))
  (func (export "divide") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
)
(register "callee" $callee)

(module
  (type $print (func (param i32)))
  (type $binary (func (param i32 i32) (result i32)))
  (import "spectest" "print_i32" (func $print (type $print)))
  (import "callee" "add" (func $add (type $binary)))
  (import "callee" "divide" (func $divide (type $binary)))
  (import "callee" "throw" (func $throw (result i32)))
  (import "callee" "t" (tag $t))
  (table $functions funcref (elem $print $add $divide))
  (elem declare func $print $add)

  ;; Into the host.
  (func (export "host") (param i32) (return_call $print (local.get 0)))
  (func (export "host, indirect") (param i32)
    (return_call_indirect (type $print) (local.get 0) (i32.const 0)))
  (func (export "host, by reference") (param i32) (return_call_ref $print (local.get 0) (ref.func $print)))

  ;; Into another instance, from a frame with operands left over.
  (func (export "add") (param i32 i32) (result i32)
    (i32.const 7) (i32.const 8) (return_call $add (local.get 0) (local.get 1)))
  (func $inner (param i32 i32) (result i32) (return_call $add (local.get 0) (local.get 1)))
  (func (export "add twice") (param i32 i32) (result i32)
    (i32.mul (i32.const 2) (call $inner (local.get 0) (local.get 1))))
  (func (export "divide") (param i32 i32) (result i32)
    (return_call_indirect (type $binary) (local.get 0) (local.get 1) (i32.const 2)))

  ;; A tail call leaves the block that handles exceptions; a call does not.
  (func (export "call in a handler") (result i32)
    (block (try_table (result i32) (catch $t 0) (call $throw)) (return)) (i32.const 42))
  (func $guard (export "tail call in a handler") (result i32)
    (block (try_table (catch $t 0) (return_call $throw))) (i32.const 42))
  (func (export "handler one frame up") (result i32)
    (block (try_table (result i32) (catch $t 0) (call $guard)) (return)) (i32.const 43))

  ;; Constant stack across two kinds of tail call, with parameter lists of different lengths.
  (func $odd (param i64) (result i32)
    (if (i64.eqz (local.get 0)) (then (return (i32.const 0))))
    (return_call $even (i64.sub (local.get 0) (i64.const 1)) (i32.const 1) (f64.const 2)))
  (func $even (param i64 i32 f64) (result i32) (local v128 v128)
    (if (i64.eqz (local.get 0)) (then (return (local.get 1))))
    (return_call $odd (i64.sub (local.get 0) (i64.const 1))))
  (func (export "even") (param i64) (result i32) (return_call $even (local.get 0) (i32.const 1) (f64.const 0)))
)

(assert_return (invoke "host" (i32.const 1)))
(assert_return (invoke "host, indirect" (i32.const 2)))
(assert_return (invoke "host, by reference" (i32.const 3)))
(assert_return (invoke "add" (i32.const 20) (i32.const 22)) (i32.const 42))
(assert_return (invoke "add twice" (i32.const 20) (i32.const 1)) (i32.const 42))
(assert_return (invoke "divide" (i32.const 84) (i32.const 2)) (i32.const 42))
(assert_trap (invoke "divide" (i32.const 84) (i32.const 0)) "integer divide by zero")
(assert_return (invoke "call in a handler") (i32.const 42))
(assert_exception (invoke "tail call in a handler"))
(assert_return (invoke "handler one frame up") (i32.const 43))
(assert_return (invoke "even" (i64.const 20000)) (i32.const 1))
(assert_return (invoke "even" (i64.const 20001)) (i32.const 0))
