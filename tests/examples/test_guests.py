"""The example filters of every language: built from source, and doing their work behind real sockets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import guests
from tests.examples.serving import Front, answering, example
from tests.replay.proxy import free_port

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


@pytest.mark.zig
def test_access_log_writes_a_line_about_each(tmp_path: Path) -> None:
    with example("access-log", tmp_path) as front:
        front.request("/a?b=c", method="POST", body="abc")
        front.request("/second%0Aline", method="HEAD")
        lines = front.guest_lines("/second")
    text = "\n".join(lines)
    address = r"from 127\.0\.0\.1:\d+"
    assert re.search(rf"POST /a\?b=c -> 200 \(via_upstream\) {address}, 3\+12 bytes, \d+ ms", text)
    assert re.search(rf"HEAD /second%0Aline -> 200 \(via_upstream\) {address}, 0\+0 bytes, \d+ ms", text)


@pytest.mark.zig
def test_access_log_is_louder_about_errors(tmp_path: Path) -> None:
    with (
        answering({"/bad": (500, {}, b"")}) as (behind, _),
        example("access-log", tmp_path, upstream=behind) as front,
    ):
        assert front.request("/bad").status == 500
        front.guest_lines("-> 500")
        (line,) = [line for line in front.log.read_text().splitlines() if "-> 500" in line]
    assert "[warning][wasm]" in line


TEXT = {"content-type": "text/plain", "content-length": "31"}


@pytest.mark.rustc
def test_redact_body_takes_words_out(tmp_path: Path) -> None:
    answers = {
        "/text": (200, TEXT, b"The World is nothing, World! Wor"[:31]),
        "/image": (200, {"content-type": "image/png", "content-length": "5"}, b"World"),
        "/clean": (200, {"content-type": "application/json", "content-length": "2"}, b"{}"),
    }
    with (
        answering(answers) as (behind, seen),
        example("redact-body", tmp_path, upstream=behind) as front,
    ):
        text = front.request("/text", headers={"accept-encoding": "gzip"})
        assert text.body == b"The [redacted] is [redacted], [redacted]! Wor"[:-1]
        assert text.all("transfer-encoding") == ["chunked"]
        assert text.all("content-length") == []
        assert "accept-encoding" not in seen[-1]
        image = front.request("/image")
        assert (image.body, image.all("content-length")) == (b"World", ["5"])
        assert front.request("/clean").body == b"{}"
        head = front.request("/text", method="HEAD")
        assert head.all("content-length") == ["31"]
        assert any("redacted 3 in 31 bytes" in line for line in front.guest_lines("redacted 3"))


@pytest.mark.go
def test_ask_first_lets_good_tokens_pass(tmp_path: Path) -> None:
    port = free_port()
    auth = subprocess.Popen([sys.executable, str(guests.EXAMPLES / "ask-first" / "auth.py"), str(port)])
    try:
        with example("ask-first", tmp_path, {"8081": str(port)}) as front:
            refused = front.request()
            assert (refused.status, refused.body) == (401, b"no token\n")
            assert refused.all("cache-control") == ["no-store"]
            for _ in range(2):  # the second time it is known
                assert front.request(headers={"x-token": "open sesame"}).body == b"Hello World!"
                wrong = front.request(headers={"x-token": "please"}, method="POST", body="abc")
                assert (wrong.status, wrong.body) == (403, b"not allowed\n")
            front.guest_lines("asked about a token: 403")
            asked = [line for line in front.guest_lines("asked") if "asked about a token" in line]
            assert len(asked) == 2
    finally:
        auth.terminate()
        auth.wait(10)


@pytest.mark.go
def test_ask_first_says_no_when_nobody_answers(tmp_path: Path) -> None:
    with example("ask-first", tmp_path, {"8081": str(free_port())}) as front:
        assert front.request(headers={"x-token": "open sesame"}).status == 403


def test_the_service_that_is_asked() -> None:
    port = free_port()
    auth = subprocess.Popen([sys.executable, str(guests.EXAMPLES / "ask-first" / "auth.py"), str(port)])
    try:
        front = Front(port, Path())
        assert front.request(headers={"x-token": "open sesame"}).status == 200
        assert front.request().status == 403
    finally:
        auth.terminate()
        auth.wait(10)


def test_every_example_is_in_the_table_and_has_what_it_needs() -> None:
    table = (guests.EXAMPLES / "README.md").read_text(encoding="utf-8")
    folders = [path.name for path in guests.EXAMPLES.iterdir() if (path / "envoy.yaml").exists()]
    assert len(folders) == 6
    for name in folders:
        assert f"]({name})" in table
        assert (guests.EXAMPLES / name / "README.md").exists()
        assert (name in guests.MARKERS) == (guests.EXAMPLES / name / "build.sh").exists()
