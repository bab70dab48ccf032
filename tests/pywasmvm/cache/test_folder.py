"""Files of the cache: whole or not at all, ours or not used, and never too many."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pywasmvm.cache import folder

NAME = "ab-cd" + folder.SUFFIX


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", str(place))
    return place


def test_what_was_written_is_read(place: Path) -> None:
    assert folder.read(NAME) is None
    assert folder.write(NAME, b"first")
    assert folder.write(NAME, b"contents")
    assert folder.read(NAME) == b"contents"
    assert [path.name for path in place.iterdir()] == [NAME]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_only_the_owner_can_look(place: Path) -> None:
    before = os.umask(0)
    try:
        folder.write(NAME, b"contents")
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / NAME).stat().st_mode & 0o777 == 0o600


def test_any_flipped_byte_is_noticed(place: Path) -> None:
    folder.write(NAME, b"contents")
    whole = (place / NAME).read_bytes()
    for at in range(len(whole)):
        (place / NAME).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(folder.Unusable, match="damaged"):
            folder.read(NAME)


def test_any_shorter_or_longer_file_is_noticed(place: Path) -> None:
    folder.write(NAME, b"contents")
    whole = (place / NAME).read_bytes()
    for damaged in [*(whole[:size] for size in range(len(whole))), whole + b"\0"]:
        (place / NAME).write_bytes(damaged)
        with pytest.raises(folder.Unusable, match="damaged"):
            folder.read(NAME)
    assert folder.write(NAME, b"contents")
    assert folder.read(NAME) == b"contents"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_file_that_others_may_write_is_not_used(place: Path) -> None:
    folder.write(NAME, b"contents")
    (place / NAME).chmod(0o666)
    with pytest.raises(folder.Unusable, match="mode 666"):
        folder.read(NAME)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_that_others_may_write_is_not_used(place: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder.write(NAME, b"contents")
    place.chmod(0o770)
    with pytest.raises(folder.Unusable, match="mode 770"):
        folder.read(NAME)
    assert not folder.write(NAME, b"other")
    assert not folder.write(NAME, b"other")
    assert [str(place) in str(found.message) for found in recwarn] == [True]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_not_used(place: Path) -> None:
    folder.write(NAME, b"contents")
    os.chown(place / NAME, 12345, 12345)
    with pytest.raises(folder.Unusable, match="user 12345"):
        folder.read(NAME)


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
def test_links_are_not_followed(place: Path, tmp_path: Path) -> None:
    folder.write(NAME, b"contents")
    (place / NAME).rename(tmp_path / "elsewhere")
    (place / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(folder.Unusable, match="link"):
        folder.read(NAME)
    assert folder.write(NAME, b"new")
    assert folder.read(NAME) == b"new"
    assert (tmp_path / "elsewhere").read_bytes().endswith(b"contents")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX's")
def test_what_is_no_file_does_not_block(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.mkfifo(place / NAME, 0o600)
    with pytest.raises(folder.Unusable, match="not a file"):
        folder.read(NAME)


def test_no_place_to_write_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for named in ("file/cache", "file", "absent\0"):
            monkeypatch.setattr(folder, "folder", lambda named=named: str(tmp_path / named))
            if named != "file":
                assert folder.read(NAME) is None
            if "\0" not in named and named != "file":
                assert not folder.write(NAME, b"contents")


def test_a_full_disk_leaves_what_was_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(NAME, b"contents")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert not folder.write(NAME, b"other")
    assert folder.read(NAME) == b"contents"
    assert [path.name for path in place.iterdir()] == [NAME]


def test_what_was_not_used_for_longest_makes_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_MB", "0.001")
    for number in range(4):
        assert folder.write(f"{number}{folder.SUFFIX}", bytes(200))
        os.utime(place / f"{number}{folder.SUFFIX}", (number, number))
    assert folder.read(f"0{folder.SUFFIX}") is not None  # used again, now
    assert folder.write(f"4{folder.SUFFIX}", bytes(200))
    assert {file.path[-5:-4] for file in folder.files()} == {"0", "3", "4", "2"}
    assert folder.write(f"5{folder.SUFFIX}", bytes(200))
    assert {file.path[-5:-4] for file in folder.files()} == {"0", "3", "4", "5"}
    assert sum(file.size for file in folder.files()) <= folder.most()


def test_one_module_does_not_fill_the_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_MB", "0.001")
    assert not folder.write(NAME, bytes(300))
    assert folder.files() == []


def test_what_a_killed_process_left_is_swept_away(place: Path) -> None:
    folder.write(NAME, b"contents")
    old, new = place / f"{NAME}.1.2.tmp", place / f"{NAME}.1.3.tmp"
    for path in (old, new, place / "notes.tmp"):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    folder.write(NAME, b"contents")
    assert not old.exists()
    assert new.exists()
    assert folder.clear() == 1
    assert [path.name for path in place.iterdir()] == ["notes.tmp"]  # not of ours


WRITER = """
import sys
from pywasmvm.cache import folder
for turn in range(60):
    assert folder.write(sys.argv[1], sys.argv[2].encode() * 5000)
    found = folder.read(sys.argv[1])
    assert found is not None and len(found) == 5000 and len(set(found)) == 1, found
"""


def test_processes_that_write_at_once_leave_whole_files(place: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, NAME, letter]) for letter in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert [path.name for path in place.iterdir()] == [NAME]


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_DIR", "")
    assert folder.folder() is None
    assert (folder.read(NAME), folder.write(NAME, b""), folder.files(), folder.clear()) == (
        None,
        False,
        [],
        0,
    )
    monkeypatch.delenv("PYWASMVM_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder.folder() == str(tmp_path / "pywasmvm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder.folder() == str(tmp_path / ".cache" / "pywasmvm")
    folder.turn_off()
    assert folder.folder() is None


@pytest.mark.parametrize(("text", "most"), [("1", 10**6), ("0.5", 5 * 10**5), ("much", 256 * 10**6)])
def test_how_large_it_may_get(monkeypatch: pytest.MonkeyPatch, text: str, most: int) -> None:
    monkeypatch.setenv("PYWASMVM_CACHE_MB", text)
    assert folder.most() == most
