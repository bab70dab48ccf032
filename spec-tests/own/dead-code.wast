;; Typing where nothing can run: operands come from nowhere, but what is written still has to fit, and references
;; from nowhere have a heap type below all others.

(module
  (type $f (func (result i32)))
  (type $s (struct (field i32)))
  (func (unreachable) (br_on_null 0) (drop))
  (func (result (ref func)) (unreachable) (br_on_non_null 0) (unreachable))
  (func (result i32) (unreachable) (ref.as_non_null) (call_ref $f))
  (func (result i32) (unreachable) (struct.get $s 0))
  (func (unreachable) (ref.as_non_null) (drop))
  (func (result i32) (unreachable) (ref.is_null))
  (func (result anyref) (unreachable) (any.convert_extern))
  (func (result i32) (unreachable) (ref.test (ref $s)))
  (func (unreachable) (select) (drop))
  (func (result i32) (unreachable) (i32.const 1) (select))
  (func (result i32 i64) (unreachable) (br_table 0 0 0))
  (func (result i32) (block (result i32) (unreachable) (br_if 0) (drop) (i32.const 1)))
  (func (param exnref) (throw_ref (local.get 0)) (i32.add) (drop))
  (func (result i32) (block (result f32) (unreachable) (br_table 0 1 (i32.const 0))) (drop) (i32.const 1))
  (func (loop (br 0) (drop) (drop)))
  (func (result i32) (return (i32.const 1)) (f32.add) (i32.trunc_f32_s))
)

(assert_invalid (module (func (unreachable) (select (i32.const 1) (f32.const 2) (i32.const 0)) (drop))) "type mismatch")
(assert_invalid (module (func (result i32) (unreachable) (i64.const 1) (i32.add))) "type mismatch")
(assert_invalid (module (func (unreachable) (i32.const 1) (ref.as_non_null) (drop))) "type mismatch")
(assert_invalid (module (func (unreachable) (ref.null extern) (ref.test (ref any)) (drop))) "type mismatch")
(assert_invalid (module (func (result i32) (unreachable) (f32.const 0) (ref.is_null))) "type mismatch")
(assert_invalid
  (module (func (result i32) (block (result f32) (unreachable) (f32.const 0) (br_table 0 1 (i32.const 0))) (drop) (i32.const 1)))
  "type mismatch")
(assert_invalid (module (func (unreachable) (local.get 0) (drop))) "unknown local")

;; A local without a default counts as set in dead code only where that code set it.
(module (func (local $r (ref func)) (unreachable) (drop (local.get $r (local.set $r)))))
(assert_invalid (module (func (local $r (ref func)) (unreachable) (drop (local.get $r)))) "uninitialized local")
(assert_invalid
  (module (func (param $p (ref func)) (local $r (ref func))
    (block (local.set $r (local.get $p)) (br 0)) (drop (local.get $r))))
  "uninitialized local")
(assert_invalid
  (module (func (param $p (ref func)) (local $r (ref func))
    (if (i32.const 1) (then (local.set $r (local.get $p))) (else (local.set $r (local.get $p))))
    (drop (local.get $r))))
  "uninitialized local")
(assert_invalid
  (module (func (param $p (ref func)) (local $r (ref func))
    (try_table (local.set $r (local.get $p))) (drop (local.get $r))))
  "uninitialized local")
(module (func (param $p (ref func)) (local $r (ref func))
  (local.set $r (local.get $p))
  (block (loop (drop (local.get $r)))) (try_table (drop (local.get $r))) (drop (local.get $r))))
