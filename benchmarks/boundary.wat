;; Exports to call from the host: what a call costs when nothing is done in it.
(module
  (func (export "nop"))
  (func (export "first") (param i32 i32 i32) (result i32)
    local.get 0))
