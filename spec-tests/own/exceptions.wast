;; What the official scripts leave open about exceptions: traps are none, an exception keeps its identity and its
;; values through references, tables and other instances, the innermost fitting clause in order wins, and what
;; happens before a throw stays done.

(module $source
  (tag $a (export "a") (param i32))
  (tag $b (export "b") (param i32))
  (memory (export "memory") 1)
  (func (export "throw a") (param i32)
    (i32.store (i32.const 0) (local.get 0))
    (throw $a (local.get 0)))
)
(register "source" $source)

(module
  (import "source" "a" (tag $a (param i32)))
  (import "source" "a" (tag $same (param i32)))
  (import "source" "b" (tag $b (param i32)))
  (import "source" "throw a" (func $throw (param i32)))
  (import "source" "memory" (memory 1))
  (global $kept (mut exnref) (ref.null exn))
  (table $t 2 exnref)

  (func (export "two names for one tag") (result i32)
    (block (result i32) (try_table (catch $b 0) (catch $same 0) (call $throw (i32.const 5))) (i32.const 0)))
  (func (export "first fitting clause") (result i32)
    (block $all
      (block $one (result i32)
        (try_table (catch_all $all) (catch $a $one) (call $throw (i32.const 5))) (i32.const 1))
      (return))
    (i32.const 2))
  (func (export "innermost handler") (result i32)
    (block $outer (result i32)
      (block $inner (result i32)
        (try_table (catch $a $outer)
          (try_table (catch $a $inner) (call $throw (i32.const 5))))
        (i32.const 0))
      (return (i32.add (i32.const 100)))))
  (func (export "not in its own handler") (result i32)
    (block $outer (result i32)
      (try_table (catch $b $outer)
        (block $inner (result i32)
          (try_table (catch $a $inner) (call $throw (i32.const 5)))
          (unreachable))
        (throw $b (i32.add (i32.const 1))))
      (unreachable)))
  (func (export "a trap is not caught") (param i32) (result i32)
    (block (try_table (catch_all 0) (return (i32.div_u (i32.const 1) (local.get 0))))) (i32.const -1))

  ;; The same exception, thrown again much later.
  (func (export "keep") (param i32)
    (global.set $kept
      (block (result exnref)
        (try_table (catch_all_ref 0) (call $throw (local.get 0)))
        (ref.null exn)))
    (table.set $t (i32.const 1) (global.get $kept)))
  (func (export "again") (result i32)
    (block (result i32) (try_table (catch $a 0) (throw_ref (table.get $t (i32.const 1)))) (i32.const 0)))
  (func (export "throw nothing") (throw_ref (table.get $t (i32.const 0))))
  (func (export "values and reference") (result i32 exnref)
    (block (result i32 exnref)
      (try_table (catch_ref $a 0) (call $throw (i32.const 9))) (unreachable)))

  (func (export "stored") (result i32) (i32.load (i32.const 0)))
  ;; Operands below the handler stay, those inside it go.
  (func (export "operands") (result i32)
    (i32.const 1000)
    (block (result i32)
      (i32.const 100)
      (try_table (catch $a 0) (i32.const 10) (i32.const 20) (call $throw (i32.const 5)) (drop) (drop))
      (drop) (i32.const 0))
    (i32.add))
  (func (export "uncaught") (call $throw (i32.const 77)))
)

(assert_return (invoke "two names for one tag") (i32.const 5))
(assert_return (invoke "first fitting clause") (i32.const 2))
(assert_return (invoke "innermost handler") (i32.const 105))
(assert_return (invoke "not in its own handler") (i32.const 6))
(assert_trap (invoke "a trap is not caught" (i32.const 0)) "integer divide by zero")
(assert_return (invoke "a trap is not caught" (i32.const 1)) (i32.const 1))
(assert_trap (invoke "again") "null")
(invoke "keep" (i32.const 31))
(invoke "keep" (i32.const 32))
(assert_return (invoke "again") (i32.const 32))
(assert_return (invoke "again") (i32.const 32))
(assert_trap (invoke "throw nothing") "null")
(assert_return (invoke "operands") (i32.const 1005))
(assert_exception (invoke "uncaught"))
(assert_return (invoke "stored") (i32.const 77))

;; What a module wrote before its start function trapped stays.
(assert_trap
  (module
    (import "source" "memory" (memory 1))
    (func $start (i32.store (i32.const 0) (i32.const 99)) (unreachable))
    (start $start))
  "unreachable")
(assert_return (invoke "stored") (i32.const 99))
