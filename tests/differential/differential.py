"""The differential test: the same configuration, filters and requests to the real Envoy and to our proxy.

    python tests/differential/differential.py [SCENE ...]     all scenes, or those named
    python tests/differential/differential.py --show SCENE    and what Envoy did

One line per difference; the exit status is 0 when all of them are meant or known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # started as a script: make `tests` importable
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.differential import compare, observe, scenes
from tests.differential.differences import OnPurpose
from tests.replay import modules, proxy

GAPS = Path(__file__).resolve().parent / "gaps.toml"


@dataclass
class Result:
    """What a scene came to: differences nobody meant, gaps that are none any more, entries used."""

    scene: scenes.Scene
    envoy: dict[str, observe.Observed]
    wrong: list[compare.Difference] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    used: list[OnPurpose] = field(default_factory=list)

    @property
    def report(self) -> str:
        mended = [f"{name} does not differ any more: take it off gaps.toml" for name in self.mended]
        return "\n".join([*map(str, self.wrong), *mended])


def paths() -> list[Path]:
    return sorted(scenes.SCENES.glob("*.yaml"))


def load_gaps() -> dict[str, str]:
    return {str(name): str(reason) for name, reason in tomllib.loads(GAPS.read_text("utf-8")).items()}


async def _both(scene: scenes.Scene, filters: Path) -> list[dict[str, observe.Observed]]:
    commands = (proxy.Command.parse("envoy"), proxy.Command.parse(None))
    return await asyncio.gather(*(observe.observe(scene, filters, command) for command in commands))


def run(path: Path) -> Result:
    """Both proxies at the same time, and the comparison."""
    scene = scenes.load(path)
    envoy, ours = asyncio.run(_both(scene, modules.build()))
    return judge(scene, envoy, ours, load_gaps())


def judge(
    scene: scenes.Scene,
    envoy: dict[str, observe.Observed],
    ours: dict[str, observe.Observed],
    gaps: dict[str, str],
) -> Result:
    """Which of the differences are meant, known or wrong."""
    result = Result(scene, envoy)
    known = set()
    for difference in compare.compare(scene.name, envoy, ours):
        place = f"{difference.scene}:{difference.exchange}"
        meant = difference.meant
        if meant is not None:
            result.used.append(meant)
        elif place in gaps:
            known.add(place)
        else:
            result.wrong.append(difference)
    result.mended = sorted(name for name in gaps if name.startswith(f"{scene.name}:") and name not in known)
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("scenes", nargs="*", metavar="SCENE")
    parser.add_argument("--show", action="store_true", help="print what Envoy did")
    options = parser.parse_args(arguments)
    selected = [path for path in paths() if not options.scenes or path.stem in options.scenes]
    good, count = True, 0
    for path in selected:
        begin = time.monotonic()
        result = run(path)
        count += len(result.scene.exchanges)
        if options.show:
            print(json.dumps({name: asdict(seen) for name, seen in result.envoy.items()}, indent=1))
        wrong = len({difference.exchange for difference in result.wrong})
        seconds = time.monotonic() - begin
        print(f"{path.stem}: {len(result.scene.exchanges)} exchanges, {wrong} differ ({seconds:.1f} s)")
        if result.report:
            print(result.report)
        good = good and not result.report
    print(f"{len(selected)} scenes, {count} exchanges")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
