;; The loop is two calls deep: `run` calls `middle`, which calls `work`.
(module
  (func $work (param $n i32) (result i32) (local $sum i32)
    loop $next
      local.get $sum
      local.get $n
      i32.const 0x9E3779B1
      i32.mul
      i32.add
      i32.const 5
      i32.rotl
      local.set $sum
      local.get $n
      i32.const 1
      i32.sub
      local.tee $n
      br_if $next
    end
    local.get $sum)
  (func $middle (param $n i32) (result i32)
    local.get $n
    call $work
    i32.const 1
    i32.add)
  (func (export "run") (param $n i32) (result i32)
    local.get $n
    call $middle
    i32.const 1
    i32.add))
