"""The example filters of every language: built from source, and doing their work behind real sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples import guests
from tests.examples.serving import example

NPM = ["add-header", "split-visitors"]


@pytest.mark.npm
@pytest.mark.parametrize("name", NPM)
def test_rebuilding_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    for file in ("package.json", "package-lock.json"):
        shutil.copy(guests.EXAMPLES / name / file, tmp_path)
    shutil.copytree(guests.EXAMPLES / name / "assembly", tmp_path / "assembly")
    npm = shutil.which("npm")
    assert npm is not None
    for arguments in (["ci", "--no-audit", "--no-fund", "--ignore-scripts"], ["run", "build"]):
        done = subprocess.run([npm, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / f"{name}.wasm").read_bytes() == guests.build(name).read_bytes()


@pytest.mark.parametrize("name", NPM)
def test_the_lock_file_pins_contents_not_addresses(name: str) -> None:
    lock = json.loads((guests.EXAMPLES / name / "package-lock.json").read_text(encoding="utf-8"))
    packages = {key: entry for key, entry in lock["packages"].items() if key}
    manifest = json.loads((guests.EXAMPLES / name / "package.json").read_text(encoding="utf-8"))
    wanted = {**manifest["dependencies"], **manifest["devDependencies"]}
    assert {f"node_modules/{package}" for package in wanted} <= set(packages)
    for entry in packages.values():
        assert "resolved" not in entry
        assert entry["integrity"].startswith("sha512-")


def test_split_visitors_keeps_a_visitor_in_a_group(tmp_path: Path) -> None:
    with example("split-visitors", tmp_path) as front:
        by_name = {}
        for visitor in ("ann", "bob", "cy", "dan"):
            first, second = (front.request(headers={"x-visitor": visitor}) for _ in range(2))
            assert first.all("set-cookie") == second.all("set-cookie")
            by_name[visitor] = first.all("set-cookie")[0].split(";")[0]
        assert set(by_name.values()) == {"group=a", "group=b"}
        for cookie in ("group=a", "x=1; group=b; y=2"):
            assert front.request(headers={"cookie": cookie, "x-visitor": "ann"}).all("set-cookie") == []
        assert front.request(headers={"cookie": "group=c", "x-visitor": "ann"}).all("set-cookie") != []
        lines = front.guest_lines("visitor 'dan'")
        assert f"[INFO]: visitor 'ann' is in group {by_name['ann'][-1]}" in lines[0]


@pytest.mark.parametrize(("share", "group"), [("0", "a"), ("100", "b")])
def test_split_visitors_takes_the_share_from_its_configuration(
    share: str, group: str, tmp_path: Path
) -> None:
    with example("split-visitors", tmp_path, {'value: "50"': f'value: "{share}"'}) as front:
        for visitor in ("ann", "bob", "cy", "dan"):
            answer = front.request(headers={"x-visitor": visitor})
            assert answer.all("set-cookie") == [f"group={group}; Path=/; HttpOnly"]


@pytest.mark.zig
def test_count_requests_numbers_them(tmp_path: Path) -> None:
    with example("count-requests", tmp_path) as front:
        first = int(front.request().all("x-request-number")[0])
        for number in range(first + 1, first + 12):
            answer = front.request(method="POST", body="x")
            assert answer.status == 200
            assert answer.all("x-request-number") == [str(number)]
