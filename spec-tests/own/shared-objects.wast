;; One memory or table under two indices of the same module: a copy "between" them is a copy inside one object and
;; must come out as if it went through a buffer; growing one grows the other.

(module $owner
  (memory (export "memory") 1 3)
  (table (export "table") 4 10 funcref)
  (global (export "global") (mut i64) (i64.const 1))
  (data (i32.const 0) "\01\02\03\04\05\06\07\08"))
(register "owner" $owner)

(module
  (memory $a (import "owner" "memory") 1)
  (memory $b (import "owner" "memory") 1)
  (table $t (import "owner" "table") 4 funcref)
  (table $u (import "owner" "table") 4 funcref)
  (global $g (import "owner" "global") (mut i64))
  (global $h (import "owner" "global") (mut i64))
  (elem $e func $zero $one $two)
  (func $zero (result i32) (i32.const 0))
  (func $one (result i32) (i32.const 1))
  (func $two (result i32) (i32.const 2))

  (func (export "copy") (param i32 i32 i32) (memory.copy $a $b (local.get 0) (local.get 1) (local.get 2)))
  (func (export "read") (param i32) (result i64) (i64.load $a (local.get 0)))
  (func (export "grow") (result i32 i32 i32)
    (memory.grow $b (i32.const 1)) (memory.size $a) (memory.size $b))
  (func (export "reach") (result i32) (i32.load8_u $a (i32.const 0x1ffff)))
  (func (export "table") (result i32 i32 i32)
    (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 3))
    (table.copy $u $t (i32.const 1) (i32.const 0) (i32.const 3))
    (call_indirect $t (result i32) (i32.const 1))
    (call_indirect $u (result i32) (i32.const 2))
    (call_indirect $t (result i32) (i32.const 3)))
  (func (export "table.grow") (result i32 i32)
    (table.grow $u (ref.null func) (i32.const 2)) (table.size $t))
  (func (export "global") (result i64) (global.set $g (i64.const 42)) (global.get $h))
)

(invoke "copy" (i32.const 2) (i32.const 0) (i32.const 6))
(assert_return (invoke "read" (i32.const 0)) (i64.const 0x0605040302010201))
(invoke "copy" (i32.const 0) (i32.const 1) (i32.const 7))
(assert_return (invoke "read" (i32.const 0)) (i64.const 0x0606050403020102))
(assert_return (invoke "grow") (i32.const 1) (i32.const 2) (i32.const 2))
(assert_return (invoke "reach") (i32.const 0))
(assert_return (invoke "table") (i32.const 0) (i32.const 1) (i32.const 2))
(assert_return (invoke "table.grow") (i32.const 4) (i32.const 6))
(assert_return (invoke "global") (i64.const 42))

;; What is imported is measured by its size now, not by what it was declared with.
(module (import "owner" "memory" (memory 2)) (import "owner" "table" (table 6 funcref)))
(assert_unlinkable (module (import "owner" "memory" (memory 3))) "incompatible import type")
(assert_unlinkable (module (import "owner" "table" (table 7 funcref))) "incompatible import type")
