"""Downloads the official test suite, at the commit in `REVISION`, into the git-ignored folder `suite`.

    python spec-tests/get_suite.py [--from REPOSITORY]

Needs git. Only the folder `test` of that one commit is fetched.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "suite"
UPSTREAM = "https://github.com/WebAssembly/spec"

OFFLINE = """\
The suite could not be downloaded ({reason}).
Without a network: copy a checkout of {upstream} at
  {revision}
from another machine, and either say where its `test` folder is (WASM_SPEC_SUITE=FOLDER or --suite FOLDER),
or give the checkout to this program: python spec-tests/get_suite.py --from FOLDER"""


def git(*arguments: str) -> None:
    """Run git in the folder of the suite. Raises CalledProcessError with what git printed."""
    subprocess.run(["git", "-C", str(FOLDER), *arguments], check=True, capture_output=True, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from", dest="source", default=UPSTREAM, help=f"default: {UPSTREAM}")
    source = parser.parse_args().source
    revision = (HERE / "REVISION").read_text().strip()
    marker = FOLDER / ".complete"
    if marker.exists() and marker.read_text() == revision:
        print(f"{FOLDER} is at {revision} already")
        return 0
    FOLDER.mkdir(exist_ok=True)
    try:
        git("init", "--quiet")
        git("sparse-checkout", "set", "test")
        git("fetch", "--quiet", "--depth", "1", "--filter", "blob:none", source, revision)
        git("checkout", "--quiet", "--force", "FETCH_HEAD")
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        print(
            OFFLINE.format(reason=said[-1] if said else error, upstream=UPSTREAM, revision=revision),
            file=sys.stderr,
        )
        return 1
    marker.write_text(revision)
    print(f"{FOLDER / 'test'} is at {revision}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
