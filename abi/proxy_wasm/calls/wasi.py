"""The WASI functions proxy-wasm hosts offer, under `wasi_snapshot_preview1` and the older `wasi_unstable`.

A sandbox without files: standard output and error become log lines, time and randomness come from the host,
the environment from the configuration, everything else answers an error number. Source: WASI preview 1 for
the shapes, Envoy 1.40 (measured and read) for the answers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from abi.hostcall import U32, U64, OutU32, OutU64, wasi_call
from abi.proxy_wasm.types import Errno, LogLevel

if TYPE_CHECKING:
    from abi.proxy_wasm.vm import Vm

OUTPUTS = {1: LogLevel.INFO, 2: LogLevel.ERROR}
"""What is written to a descriptor becomes a log line of this level."""

MAX_RANDOM = 65536
"""Most bytes one `random_get` gives, as in Envoy."""

MAX_WRITE = 1 << 24
"""Most bytes of one write. Pieces may overlap, so without a limit a small guest could ask for terabytes."""


# --- output ---------------------------------------------------------------------------------------------


def _write(vm: Vm, fd: int, iovs: int, count: int) -> Errno | int:
    """All pieces of one call make one log line, without one newline at its end; the number of bytes."""
    level = OUTPUTS.get(fd)
    if level is None:
        return Errno.BADF
    pieces = list(struct.iter_unpack("<II", vm.guest.read(iovs, 8 * count)))
    if sum(size for _, size in pieces) > MAX_WRITE:
        return Errno.INVAL
    text = b"".join([vm.guest.read(at, size) for at, size in pieces])
    if text:
        vm.log(level, text.removesuffix(b"\n"))
    return len(text)


@wasi_call
def fd_write(vm: Vm, fd: U32, iovs: U32, count: U32) -> Errno | OutU32:
    return _write(vm, fd, iovs, count)


@wasi_call
def fd_pwrite(vm: Vm, fd: U32, iovs: U32, count: U32, offset: U64) -> Errno | OutU32:
    return _write(vm, fd, iovs, count)


# --- descriptors ----------------------------------------------------------------------------------------


def _if_output(fd: int) -> Errno:
    return Errno.SUCCESS if fd in OUTPUTS else Errno.BADF


@wasi_call
def fd_fdstat_get(vm: Vm, fd: U32, to: U32) -> Errno:
    """24 bytes: no type, no flags, and the right to write."""
    if fd not in OUTPUTS:
        return Errno.BADF
    vm.guest.write(to, struct.pack("<QQQ", 0, 64, 0))
    return Errno.SUCCESS


@wasi_call
def fd_seek(vm: Vm, fd: U32, offset: U64, whence: U32, to: U32) -> Errno:
    """Accepted; the new position is not written."""
    return Errno.SUCCESS


@wasi_call
def fd_tell(vm: Vm, fd: U32, to: U32) -> Errno:
    if fd not in OUTPUTS:
        return Errno.BADF
    vm.guest.write_u64(to, 0)
    return Errno.SUCCESS


@wasi_call
def fd_close(vm: Vm, fd: U32) -> Errno:
    return Errno.SUCCESS


@wasi_call
def fd_read(vm: Vm, fd: U32, iovs: U32, count: U32, to: U32) -> Errno:
    return Errno.NOSYS


@wasi_call
def fd_pread(vm: Vm, fd: U32, iovs: U32, count: U32, offset: U64, to: U32) -> Errno:
    return Errno.NOSYS


@wasi_call
def fd_fdstat_set_flags(vm: Vm, fd: U32, flags: U32) -> Errno:
    return Errno.NOSYS


@wasi_call
def fd_fdstat_set_rights(vm: Vm, fd: U32, base: U64, inheriting: U64) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_advise(vm: Vm, fd: U32, offset: U64, size: U64, advice: U32) -> Errno:
    return Errno.SUCCESS


@wasi_call
def fd_allocate(vm: Vm, fd: U32, offset: U64, size: U64) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_datasync(vm: Vm, fd: U32) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_sync(vm: Vm, fd: U32) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_filestat_get(vm: Vm, fd: U32, to: U32) -> Errno:
    return Errno.BADF


@wasi_call
def fd_filestat_set_size(vm: Vm, fd: U32, size: U64) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_filestat_set_times(vm: Vm, fd: U32, accessed: U64, modified: U64, flags: U32) -> Errno:
    return _if_output(fd)


@wasi_call
def fd_readdir(vm: Vm, fd: U32, to: U32, size: U32, cookie: U64, used: U32) -> Errno:
    vm.guest.write_u32(used, 0)
    return Errno.NOTDIR


@wasi_call
def fd_renumber(vm: Vm, fd: U32, to: U32) -> Errno:
    return Errno.NOTSUP if fd in OUTPUTS and to in OUTPUTS else Errno.BADF


@wasi_call
def fd_prestat_get(vm: Vm, fd: U32, to: U32) -> Errno:
    """No directory is open; this answer ends the search that every C library does at start-up."""
    return Errno.BADF


@wasi_call
def fd_prestat_dir_name(vm: Vm, fd: U32, to: U32, size: U32) -> Errno:
    return Errno.NOSYS


# --- paths ----------------------------------------------------------------------------------------------


@wasi_call
def path_open(
    vm: Vm,
    fd: U32,
    lookup: U32,
    path: U32,
    size: U32,
    open_flags: U32,
    base: U64,
    inheriting: U64,
    flags: U32,
    to: U32,
) -> Errno:
    return Errno.NOENT


@wasi_call
def path_filestat_get(vm: Vm, fd: U32, lookup: U32, path: U32, size: U32, to: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_filestat_set_times(
    vm: Vm, fd: U32, lookup: U32, path: U32, size: U32, accessed: U64, modified: U64, flags: U32
) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_create_directory(vm: Vm, fd: U32, path: U32, size: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_link(
    vm: Vm, old_fd: U32, lookup: U32, old: U32, old_size: U32, new_fd: U32, new: U32, new_size: U32
) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_readlink(vm: Vm, fd: U32, path: U32, size: U32, to: U32, room: U32, used: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_remove_directory(vm: Vm, fd: U32, path: U32, size: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_rename(vm: Vm, old_fd: U32, old: U32, old_size: U32, new_fd: U32, new: U32, new_size: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_symlink(vm: Vm, old: U32, old_size: U32, fd: U32, new: U32, new_size: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def path_unlink_file(vm: Vm, fd: U32, path: U32, size: U32) -> Errno:
    return Errno.NOTSUP


# --- arguments and environment --------------------------------------------------------------------------


@wasi_call
def args_sizes_get(vm: Vm) -> Errno | tuple[OutU32, OutU32]:
    return 0, 0


@wasi_call
def args_get(vm: Vm, pointers: U32, texts: U32) -> Errno:
    return Errno.SUCCESS


@wasi_call
def environ_sizes_get(vm: Vm) -> Errno | tuple[OutU32, OutU32]:
    """How many variables, and how many bytes all `K=V` texts take, their NULs included."""
    return len(vm.environment), sum(map(len, _variables(vm)))


@wasi_call
def environ_get(vm: Vm, pointers: U32, texts: U32) -> Errno:
    """Write every `K=V` text and a pointer to each, in the order of the configuration."""
    for text in _variables(vm):
        vm.guest.write_u32(pointers, texts)
        vm.guest.write(texts, text)
        pointers += 4
        texts += len(text)
    return Errno.SUCCESS


def _variables(vm: Vm) -> list[bytes]:
    return [f"{key}={value}\0".encode("utf-8", "surrogateescape") for key, value in vm.environment.items()]


# --- clocks, randomness, scheduling, exit ---------------------------------------------------------------


@wasi_call
def clock_time_get(vm: Vm, clock: U32, precision: U64) -> Errno | OutU64:
    """Nanoseconds of the wall clock (0) or the monotonic one (1); processor-time clocks do not exist."""
    if clock == 0:
        return vm.host.wall_clock_ns()
    return vm.host.monotonic_ns() if clock == 1 else Errno.NOTSUP


@wasi_call
def clock_res_get(vm: Vm, clock: U32) -> Errno | OutU64:
    return 1 if clock in (0, 1) else Errno.NOTSUP


@wasi_call
def random_get(vm: Vm, to: U32, size: U32) -> Errno:
    if size > MAX_RANDOM:
        return Errno.INVAL
    vm.guest.write(to, vm.host.random_bytes(size))
    return Errno.SUCCESS


@wasi_call
def sched_yield(vm: Vm) -> Errno:
    return Errno.SUCCESS


@wasi_call
def poll_oneoff(vm: Vm, subscriptions: U32, events: U32, count: U32) -> Errno | OutU32:
    """No event happens, at once: a filter may not sleep."""
    return 0


@wasi_call
def proc_exit(vm: Vm, code: U32) -> None:
    """Returns to the guest, as in Envoy: one filter cannot end the proxy. AssemblyScript traps next."""


# --- sockets --------------------------------------------------------------------------------------------


@wasi_call
def sock_accept(vm: Vm, fd: U32, flags: U32, to: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def sock_recv(vm: Vm, fd: U32, iovs: U32, count: U32, flags: U32, size_to: U32, flags_to: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def sock_send(vm: Vm, fd: U32, iovs: U32, count: U32, flags: U32, size_to: U32) -> Errno:
    return Errno.NOTSUP


@wasi_call
def sock_shutdown(vm: Vm, fd: U32, how: U32) -> Errno:
    return Errno.NOTSUP
