"""proxy-wasm's own WASI table: every function's answer."""

from __future__ import annotations

import struct

import pytest

from abi.proxy_wasm.types import Errno, LogLevel
from abi.proxy_wasm.versions import WASI_MODULES
from tests.abi.rig import INPUT, LONG, OUTPUT, PAGES, WORD, Rig

FAR = 0xFFFFFFF0


@pytest.fixture(scope="module", params=WASI_MODULES)
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(wasi=request.param, environment={"FOO": "bar", "É": ""})


def write(rig: Rig, fd: int, *pieces: bytes, call: str = "fd_write") -> tuple[int, int | None]:
    at = INPUT + 0x800
    table = b""
    for piece in pieces:
        rig.vm.guest.write(at, piece)
        table += struct.pack("<II", at, len(piece))
        at += len(piece)
    rig.vm.guest.write(INPUT, table)
    rig.host.records.clear()
    offset = () if call == "fd_write" else (0,)
    answer: tuple[int, int | None] = rig.ask(call, fd, INPUT, len(pieces), *offset, WORD)
    return answer


def logged(rig: Rig) -> list[tuple[LogLevel, str]]:
    return [(r.level, r.message) for r in rig.host.records]


@pytest.mark.parametrize("call", ["fd_write", "fd_pwrite"])
@pytest.mark.parametrize(
    ("fd", "pieces", "answer", "lines"),
    [
        (1, [b"out line\n"], (0, 9), [(LogLevel.INFO, "out line")]),
        (2, [b"part1 ", b"part2"], (0, 11), [(LogLevel.ERROR, "part1 part2")]),
        (1, [b"two\n\n"], (0, 5), [(LogLevel.INFO, "two\n")]),
        (1, [b""], (0, 0), []),
        (1, [], (0, 0), []),
        (0, [b"x"], (Errno.BADF, None), []),
        (3, [b"x"], (Errno.BADF, None), []),
    ],
)
def test_output_becomes_log_lines(
    rig: Rig,
    call: str,
    fd: int,
    pieces: list[bytes],
    answer: tuple[int, int | None],
    lines: list[tuple[LogLevel, str]],
) -> None:
    assert write(rig, fd, *pieces, call=call) == answer
    assert logged(rig) == lines


def test_output_outside_memory_is_a_fault(rig: Rig) -> None:
    rig.host.records.clear()
    assert rig.ask("fd_write", 1, FAR, 1, WORD) == (Errno.FAULT, None)
    assert rig.ask("fd_write", 1, INPUT, 0xFFFFFFFF, WORD) == (Errno.FAULT, None)
    rig.vm.guest.write(INPUT, struct.pack("<II", FAR, 4))
    assert rig.ask("fd_write", 1, INPUT, 1, WORD) == (Errno.FAULT, None)
    assert logged(rig) == []


WRITING = [
    ("fd_write", (1, INPUT, 0), 1, ()),
    ("fd_pwrite", (1, INPUT, 0, 0), 1, ()),
    ("fd_tell", (1,), 1, ()),
    ("fd_fdstat_get", (1,), 1, ()),
    ("fd_readdir", (3, INPUT, 64, 0), 1, ()),
    ("args_sizes_get", (), 2, ()),
    ("environ_sizes_get", (), 2, ()),
    ("environ_get", (), 2, ()),
    ("clock_time_get", (0, 0), 1, ()),
    ("clock_time_get", (1, 0), 1, ()),
    ("clock_res_get", (0,), 1, ()),
    ("random_get", (), 1, (8,)),
    ("poll_oneoff", (INPUT, OUTPUT, 0), 1, ()),
]
"""Functions that write: how many addresses they take, between what comes before and what comes after."""


@pytest.mark.parametrize(("name", "before", "places", "after"), WRITING)
@pytest.mark.parametrize("address", [FAR, 0xFFFFFFFF, PAGES * 65536 - 3])
def test_what_cannot_be_written_is_a_fault(
    rig: Rig, name: str, before: tuple[int, ...], places: int, after: tuple[int, ...], address: int
) -> None:
    good = [OUTPUT + 16 * number for number in range(places)]
    assert rig.ask(name, *before, *good, *after) in (0, Errno.NOTDIR)
    for place in range(places):
        bad = [*good[:place], address, *good[place + 1 :]]
        assert rig.ask(name, *before, *bad, *after) == Errno.FAULT


def test_overlapping_pieces_cannot_multiply_memory(rig: Rig) -> None:
    rig.vm.guest.write(INPUT, struct.pack("<II", 0, 0x100000) * 32)
    assert rig.ask("fd_write", 1, INPUT, 32, WORD) == (Errno.INVAL, None)


def test_environment(rig: Rig) -> None:
    texts = [b"FOO=bar\0", "É=\0".encode()]
    assert rig.ask("environ_sizes_get", WORD, WORD) == (0, 2, sum(map(len, texts)))
    assert rig.ask("environ_get", INPUT, INPUT + 64) == 0
    first, second = rig.vm.guest.read_u32(INPUT), rig.vm.guest.read_u32(INPUT + 4)
    assert (first, second) == (INPUT + 64, INPUT + 64 + len(texts[0]))
    assert rig.vm.guest.read(first, sum(map(len, texts))) == b"".join(texts)
    assert rig.ask("environ_get", FAR, INPUT) == Errno.FAULT


def test_no_arguments(rig: Rig) -> None:
    assert rig.ask("args_sizes_get", WORD, WORD) == (0, 0, 0)
    assert rig.ask("args_get", INPUT, INPUT) == 0


def test_clocks(rig: Rig) -> None:
    rig.host.wall_clock_ns = lambda: 5  # type: ignore[method-assign]
    rig.host.monotonic_ns = lambda: 6  # type: ignore[method-assign]
    assert rig.ask("clock_time_get", 0, 1, LONG) == (0, 5)
    assert rig.ask("clock_time_get", 1, 1, LONG) == (0, 6)
    assert rig.ask("clock_time_get", 2, 1, LONG) == (Errno.NOTSUP, None)
    assert rig.ask("clock_res_get", 0, LONG) == (0, 1)
    assert rig.ask("clock_res_get", 1, LONG) == (0, 1)
    assert rig.ask("clock_res_get", 3, LONG) == (Errno.NOTSUP, None)


def test_randomness(rig: Rig) -> None:
    rig.host.random_bytes = lambda count: b"\x07" * count  # type: ignore[method-assign]
    rig.vm.guest.write(INPUT, bytes(8))
    assert rig.ask("random_get", INPUT, 4) == 0
    assert rig.vm.guest.read(INPUT, 8) == b"\7\7\7\7\0\0\0\0"
    assert rig.ask("random_get", INPUT, 65536) == 0
    assert rig.ask("random_get", INPUT, 65537) == Errno.INVAL
    assert rig.ask("random_get", FAR, 64) == Errno.FAULT


def test_descriptor_status(rig: Rig) -> None:
    for fd in (1, 2):
        rig.vm.guest.write(OUTPUT, b"\xff" * 24)
        assert rig.ask("fd_fdstat_get", fd, OUTPUT) == 0
        assert rig.vm.guest.read(OUTPUT, 24) == struct.pack("<QQQ", 0, 64, 0)
    assert rig.ask("fd_fdstat_get", 0, OUTPUT) == Errno.BADF
    assert rig.ask("fd_fdstat_get", 1, FAR) == Errno.FAULT


def test_position(rig: Rig) -> None:
    assert rig.ask("fd_seek", 1, 0, 0, WORD) == (0, None)
    assert rig.ask("fd_tell", 1, LONG) == (0, 0)
    assert rig.ask("fd_tell", 0, LONG) == (Errno.BADF, None)


def test_a_directory_has_no_entries(rig: Rig) -> None:
    assert rig.ask("fd_readdir", 3, INPUT, 64, 0, WORD) == (Errno.NOTDIR, 0)


def test_waiting_ends_at_once(rig: Rig) -> None:
    assert rig.ask("poll_oneoff", INPUT, INPUT, 1, WORD) == (0, 0)
    assert rig.ask("sched_yield") == 0


def test_exit_returns(rig: Rig) -> None:
    assert rig.ask("proc_exit", 1) is None
    assert rig.ask("sched_yield") == 0


FIXED: list[tuple[str, tuple[int, ...], Errno]] = [
    ("fd_read", (0, 0, 0, 0), Errno.NOSYS),
    ("fd_pread", (0, 0, 0, 0, 0), Errno.NOSYS),
    ("fd_close", (1,), Errno.SUCCESS),
    ("fd_fdstat_set_flags", (1, 0), Errno.NOSYS),
    ("fd_advise", (1, 0, 0, 0), Errno.SUCCESS),
    ("fd_filestat_get", (1, 0), Errno.BADF),
    ("fd_prestat_get", (3, 0), Errno.BADF),
    ("fd_prestat_dir_name", (3, 0, 0), Errno.NOSYS),
    ("fd_renumber", (1, 2), Errno.NOTSUP),
    ("fd_renumber", (1, 9), Errno.BADF),
    ("path_open", (3, 0, 0, 0, 0, 0, 0, 0, 0), Errno.NOENT),
    ("path_filestat_get", (3, 0, 0, 0, 0), Errno.NOTSUP),
    ("path_filestat_set_times", (3, 0, 0, 0, 0, 0, 0), Errno.NOTSUP),
    ("path_create_directory", (3, 0, 0), Errno.NOTSUP),
    ("path_link", (3, 0, 0, 0, 3, 0, 0), Errno.NOTSUP),
    ("path_readlink", (3, 0, 0, 0, 0, 0), Errno.NOTSUP),
    ("path_remove_directory", (3, 0, 0), Errno.NOTSUP),
    ("path_rename", (3, 0, 0, 3, 0, 0), Errno.NOTSUP),
    ("path_symlink", (0, 0, 3, 0, 0), Errno.NOTSUP),
    ("path_unlink_file", (3, 0, 0), Errno.NOTSUP),
    ("sock_accept", (3, 0, 0), Errno.NOTSUP),
    ("sock_recv", (3, 0, 0, 0, 0, 0), Errno.NOTSUP),
    ("sock_send", (3, 0, 0, 0, 0), Errno.NOTSUP),
    ("sock_shutdown", (3, 0), Errno.NOTSUP),
    *(
        (name, (fd, *rest), Errno.SUCCESS if fd in (1, 2) else Errno.BADF)
        for name, rest in (
            ("fd_allocate", (0, 0)),
            ("fd_datasync", ()),
            ("fd_sync", ()),
            ("fd_fdstat_set_rights", (0, 0)),
            ("fd_filestat_set_size", (0,)),
            ("fd_filestat_set_times", (0, 0, 0)),
        )
        for fd in (0, 1, 2, 3)
    ),
]


@pytest.mark.parametrize(("name", "arguments", "answer"), FIXED)
def test_fixed_answers(rig: Rig, name: str, arguments: tuple[int, ...], answer: Errno) -> None:
    assert rig.ask(name, *arguments) == answer
