"""The article's own files, unmodified: built by npm, served beside their Node server, asked by curl.

    python .ci/story.py SEED_FOLDER

Both builds of the filter (optimized and untouched) must add the header and write their last debug lines. Each
program runs as a child of this one, in a temporary copy of the folder.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER_PORT, PROXY_PORT = 8080, 8099
GUEST_LINES = ("onLog()", "onDone()", "onDelete()")
LIMIT = 30.0  # seconds until a port answers


class StoryError(Exception):
    """The story did not go as the article tells it."""


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise StoryError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + LIMIT
    while time.monotonic() < give_up and child.poll() is None:
        try:
            socket.create_connection(("localhost", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise StoryError(f"nothing answers on port {port}")


def serve(build: str, folder: Path) -> None:
    """One curl through the proxy with this build of the filter, checked."""
    shutil.copy(folder / "build" / f"{build}.wasm", folder / "optimized.wasm")  # the name in envoycfg.yaml
    log = folder / f"{build}.log"
    command = [sys.executable, "-m", "pywasmvm", "serve", "-c", "envoycfg.yaml", "-l", "debug"]
    with log.open("wb") as output:
        proxy = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        wait_for(PROXY_PORT, proxy)
        answer = run(["curl", "--silent", "--show-error", "-i", f"localhost:{PROXY_PORT}"], folder)
        give_up = time.monotonic() + 3
        while "onDelete()" not in log.read_text(errors="replace") and time.monotonic() < give_up:
            time.sleep(0.05)
    finally:
        proxy.terminate()
        status = proxy.wait(15)
        said = log.read_text(errors="replace")
    print(f"--- {build}: curl -i localhost:{PROXY_PORT}\n{answer}\n", flush=True)
    missing = [text for text in ("HTTP/1.1 200", "\nhi: trendyol!\n", "Hello World!") if text not in answer]
    guest = [line for line in said.splitlines() if "[debug]" in line and "wasm log" in line]
    missing += [text for text in GUEST_LINES if not any(text in line for line in guest)]
    if missing or status != 0:
        raise StoryError(f"{build}: missing {missing}, the proxy ended with {status} and said:\n{said}")
    print("\n".join(line for line in guest if any(text in line for text in GUEST_LINES)), flush=True)


def main() -> int:
    seed = Path(sys.argv[1])
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "seed"
            shutil.copytree(seed, folder, copy_function=shutil.copyfile)
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)  # the originals may be read-only
            npm = shutil.which("npm")
            if npm is None:
                raise StoryError("npm is missing")
            run([npm, "install", "--no-audit", "--no-fund"], folder)
            run([npm, "run", "asbuild"], folder)
            node = subprocess.Popen(["node", "demo-server.js"], cwd=folder)
            try:
                wait_for(SERVER_PORT, node)
                for build in ("optimized", "untouched"):
                    serve(build, folder)
            finally:
                node.terminate()
                node.wait(15)
    except (StoryError, OSError) as error:
        print(f"story: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
