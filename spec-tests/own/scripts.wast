;; The script language itself: what a name means, what is current, what a module in another form is.

(module $one (func (export "which") (result i32) (i32.const 1)))
(module $two (func (export "which") (result i32) (i32.const 2)))
(assert_return (invoke "which") (i32.const 2))
(assert_return (invoke $one "which") (i32.const 1))

;; A definition is not an instance, and the subject of an assertion is neither.
(module definition $three (func (export "which") (result i32) (i32.const 3)) (global (export "g") (mut i32) (i32.const 0)))
(assert_return (invoke "which") (i32.const 2))
(assert_invalid (module $two (func (result i32))) "type mismatch")
(assert_unlinkable (module (import "nowhere" "f" (func))) "unknown import")
(assert_return (invoke "which") (i32.const 2))
(assert_return (invoke $two "which") (i32.const 2))
(module instance $first $three)
(assert_return (invoke "which") (i32.const 3))
(module instance $second $three)
(assert_return (get $first "g") (i32.const 0))

;; A name that is used again means the newer instance; registering keeps the older one.
(register "old" $one)
(module $one (func (export "which") (result i32) (i32.const 11)))
(assert_return (invoke $one "which") (i32.const 11))
(module (import "old" "which" (func $old (result i32))) (func (export "old") (result i32) (call $old)))
(assert_return (invoke "old") (i32.const 1))

;; The same module in three forms, strings in pieces, annotations and comments between any two tokens.
(module binary "\00asm" "\01\00\00\00" "\01\05\01\60\00\01\7f" "\03\02\01\00" "\07\09\01\05which\00\00"
  "\0a\06\01\04\00\41\04\0b")
(assert_return (invoke "which") (i32.const 4))
(module quote "(func (export \"which\")" " (result i32) (i32.const 5))")
(assert_return (invoke "which") (i32.const 5))
((@note) module (@a "b" (c)) $six (; (; nested ;) ;) (func (export "which") (result i32) ;; to the end
  (i32.const 6)))
((@note) assert_return (invoke (@note) "which") (@note) (i32.const 6))
(module binary "\00asm\01\00\00\00")

;; NaN classes take either sign; constants are exact.
(module (func (export "id") (param f32 f64 v128) (result f32 f64 v128) (local.get 0) (local.get 1) (local.get 2)))
(assert_return
  (invoke "id" (f32.const -nan) (f64.const nan:0xc000000000001) (v128.const f32x4 nan 1 -nan:0x600000 -0))
  (f32.const nan:canonical) (f64.const nan:arithmetic) (v128.const f32x4 nan:canonical 1 nan:arithmetic -0))
