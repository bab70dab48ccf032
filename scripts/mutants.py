"""Seeded mutants of the validator and the numerics: does any test notice when a line is wrong?

Each mutant is one small change of the source, found through the syntax tree and chosen by a seeded
generator, so a run can be repeated. It is applied to a copy of the tree in a temporary folder, where the
tests that mirror the changed file run first. Exit status 0 only if every mutant was killed (`make mutants`).
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = ROOT / "scripts" / "mutants_equivalent.toml"
PACKAGES = ("pywasmvm/valid", "pywasmvm/numerics")
COPIED = ("pywasmvm", "abi", "pywasmproxy", "tests", "pyproject.toml")
#: How long the tests of a package may take without a mutant; with one they may take so many times as long as
#: without, and so many seconds at least: what takes longer has noticed it.
TIMEOUT_S = 900.0
PATIENCE, LEAST_TIMEOUT_S = 3.0, 90.0

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.FloorDiv: "%", ast.Mod: "//", ast.Div: "*",
    ast.LShift: ">>", ast.RShift: "<<", ast.BitAnd: "|", ast.BitOr: "&", ast.BitXor: "|",
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: characters `start` to `end` of `file` (POSIX path from the root) become `text`."""

    file: str
    start: int
    end: int
    kind: str
    text: str
    line: int
    function: str
    source_line: str
    change: str

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What names the mutant across edits elsewhere in the file."""
        return (self.file, self.function, self.source_line, self.change)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.kind}: {self.change}"


class Finder(ast.NodeVisitor):
    """Collects every possible mutant of one source file."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for text in self.lines:
            self.starts.append(self.starts[-1] + len(text))
        self.function: list[str] = []
        self.found: list[Mutant] = []

    def offset(self, line: int, column: int) -> int:
        """Characters from the start of the file; `column` counts UTF-8 bytes, as in every ast node."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno, node.end_col_offset
        if end_line is None or end_column is None:
            raise ValueError("a parsed node has an end")
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def add(
        self, kind: str, node: ast.expr | ast.stmt, text: str, within: tuple[int, int] | None = None
    ) -> None:
        """`text` replaces the node, or only the characters `within`; the description shows the whole node."""
        start, end = self.span(node)
        first, last = within or (start, end)
        changed = self.source[start:first] + text + self.source[last:end]
        change = f"`{_one_line(self.source[start:end])}` becomes `{_one_line(changed)}`"
        self.found.append(
            Mutant(
                self.file,
                first,
                last,
                kind,
                text,
                node.lineno,
                ".".join(self.function) or "<module>",
                self.lines[node.lineno - 1].strip(),
                change,
            )
        )

    def between(self, left: ast.expr, right: ast.expr) -> tuple[int, int]:
        """The characters from one operand to the next that are neither parentheses nor spaces."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end]
        lead = len(gap) - len(gap.lstrip(" \n)"))
        return start + lead, start + len(gap.rstrip(" \n("))

    # -- where nothing is to be changed ------------------------------------------------------------------

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Wording is not meaning."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self.add("condition always true", node.test, "True")
        self.add("condition always false", node.test, "False")
        self.generic_visit(node)

    # -- names -------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in ("__repr__", "__str__"):
            return
        self.function.append(node.name)
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)
        self.function.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.function.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.function.pop()

    # -- changes -----------------------------------------------------------------------------------------

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands[:-1], node.ops, operands[1:], strict=True):
            self.add("comparison", node, COMPARISONS[type(operator)], self.between(left, right))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = ARITHMETIC.get(type(node.op))
        if other is not None and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            self.add("operator", node, other, self.between(node.left, node.right))
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for dropped in range(len(node.values)):
            kept = [value for index, value in enumerate(node.values) if index != dropped]
            word = " and " if isinstance(node.op, ast.And) else " or "
            parts = ["(" + self.source[slice(*self.span(value))] + ")" for value in kept]
            self.add("dropped condition", node, word.join(parts))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self.add("dropped sign", node, "(" + self.source[slice(*self.span(node.operand))] + ")")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        then, other = (self.source[slice(*self.span(part))] for part in (node.body, node.orelse))
        test = self.source[slice(*self.span(node.test))]
        self.add("swapped branches", node, f"({other}) if {test} else ({then})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add("constant", node, str(not value))
        elif isinstance(value, int):
            self.add("constant", node, str(value + 1))
        elif isinstance(value, float):
            self.add("constant", node, repr(value * 2 if value else 1.0))

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of `zip`: an assertion, not behaviour
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        plain = not any(isinstance(argument, ast.Starred) for argument in node.args)
        if len(node.args) >= 2 and plain:
            first, second = (self.span(argument) for argument in node.args[:2])
            one, two = self.source[slice(*first)], self.source[slice(*second)]
            if one != two and not _is_text(node.args[0]) and not _is_text(node.args[1]):
                middle = self.source[first[1] : second[0]]
                self.add("swapped arguments", node, two + middle + one, (first[0], second[1]))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        self.add("removed statement", node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.add("removed statement", node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add("removed statement", node, "pass")
        self.generic_visit(node)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 90 else flat[:87] + "..."


def find(root: Path) -> list[Mutant]:
    """All mutants of the two packages that compile and change something, in the order of the source."""
    found: list[Mutant] = []
    for package in PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            source = path.read_text(encoding="utf-8")
            finder = Finder(path.relative_to(root).as_posix(), source)
            tree = ast.parse(source)
            finder.visit(tree)
            unchanged = ast.dump(tree)
            for mutant in sorted(finder.found):
                try:
                    changed = ast.dump(ast.parse(apply(source, mutant)))
                except SyntaxError:
                    continue
                if changed != unchanged:
                    found.append(mutant)
    return found


def apply(source: str, mutant: Mutant) -> str:
    """The source with the change made."""
    return source[: mutant.start] + mutant.text + source[mutant.end :]


def read_equivalent(path: Path) -> dict[tuple[str, str, str, str], str]:
    """Mutants that cannot be told from the original, by identity, with the reason each."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    return {(e["file"], e["function"], e["line"], e["change"]): e["reason"] for e in entries}


def choose(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` mutants, half of each package, of as many kinds as there are."""
    source = random.Random(seed)
    groups: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in mutants:
        groups.setdefault((mutant.file.rpartition("/")[0], mutant.kind), []).append(mutant)
    for group in groups.values():
        source.shuffle(group)
    turns: dict[str, list[tuple[str, str]]] = {}
    for key in sorted(groups):
        turns.setdefault(key[0], []).append(key)
    for keys in turns.values():
        source.shuffle(keys)
    chosen: list[Mutant] = []
    packages = sorted(turns)
    while len(chosen) < count and any(groups.values()):
        for package in packages:
            left = [key for key in turns[package] if groups[key]]
            if left and len(chosen) < count:
                chosen.append(groups[left[0]].pop())
                turns[package].remove(left[0])
                turns[package].append(left[0])
    return chosen


def stages_for(root: Path, file: str) -> list[str]:
    """Test paths to run one after the other for a changed file: the mirror of it, then all of its package."""
    package, _, name = file.rpartition("/")
    return [path for path in (f"tests/{package}/test_{name}", f"tests/{package}") if (root / path).exists()]


def run_tests(
    tree: Path, path: str, seconds: float = TIMEOUT_S, *, processes: int = 0, keep_bytecode: bool = False
) -> tuple[int | None, str]:
    """pytest's exit status (None: it ran out of time) and what failed first."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    command += ["-p", "tests.support.no_shrinking", "-n", str(processes), "-m", "not slow", path]
    variables = environment(tree) | {"PYTHONDONTWRITEBYTECODE": "" if keep_bytecode else "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=variables, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None, f"no end within {seconds:.0f} s"
    reasons = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, reasons[0].split(" - ")[0] if reasons else done.stdout[-2000:] + done.stderr[
        -2000:
    ]


def environment(tree: Path) -> dict[str, str]:
    """Variables that make Python import from this tree, bytecode included."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    return {**kept, "PYTHONPATH": str(tree), "HYPOTHESIS_PROFILE": "no-shrinking"}


def imports_from(tree: Path) -> bool:
    """Whether a process in this tree really runs the code that is there."""
    command = [sys.executable, "-c", "import pywasmvm; print(pywasmvm.__path__[0])"]
    done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
    return done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(tree)


def copy(root: Path, tree: Path) -> Path:
    """A copy of what the tests need, without bytecode."""
    tree.mkdir()
    for name in COPIED:
        if (root / name).is_dir():
            shutil.copytree(root / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
        elif (root / name).exists():
            shutil.copy(root / name, tree / name)
    return tree


def forget_bytecode(path: Path) -> None:
    """Have a file compiled again and again: a mutant may be as old and as long as what it replaces."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def try_mutant(trees: SimpleQueue[Path], mutant: Mutant, seconds: float) -> bool:
    """Whether a test notices within so many seconds; prints one line."""
    tree = trees.get()
    path = tree / mutant.file
    original = path.read_text(encoding="utf-8")
    began = time.monotonic()
    status: int | None = 0
    reason = ""
    try:
        forget_bytecode(path)
        path.write_text(apply(original, mutant), encoding="utf-8")
        for path_of_tests in stages_for(tree, mutant.file):
            status, reason = run_tests(tree, path_of_tests, seconds)
            if status != 0:
                break
    finally:
        path.write_text(original, encoding="utf-8")
        trees.put(tree)
    killed = status in (None, 1, 2)
    word = "killed  " if killed else "SURVIVED" if status == 0 else f"pytest failed with status {status}:"
    tail = reason.removeprefix("FAILED ") if killed else "" if status == 0 else reason
    print(f"{word} {mutant}  [{time.monotonic() - began:.1f} s] {tail}".rstrip(), flush=True)
    return killed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="mutants whose line of output contains this text")
    parser.add_argument("--list", action="store_true", help="print the chosen mutants without running tests")
    options = parser.parse_args(arguments)

    everything = find(ROOT)
    equivalent = read_equivalent(EQUIVALENT)
    stale = equivalent.keys() - {mutant.identity for mutant in everything}
    for identity in sorted(stale):
        print(f"{EQUIVALENT.name}: this mutant no longer exists, remove its entry: {identity}")
    candidates = [mutant for mutant in everything if mutant.identity not in equivalent]
    chosen = choose([m for m in candidates if options.only in str(m)], options.count, options.seed)
    if options.list:
        print("\n".join(map(str, chosen)))
        return 1 if stale else 0

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        first = copy(ROOT, Path(folder) / "tree0")
        print(f"{len(chosen)} of {len(candidates)} mutants, seed {options.seed}", flush=True)
        if not imports_from(first):
            print("Python would not import the copy: nothing could be learnt")
            return 1
        # The unchanged tree must pass, or every mutant would seem to be killed.
        limits: dict[str, float] = {}
        for package in sorted({mutant.file.rpartition("/")[0] for mutant in chosen}):
            began = time.monotonic()
            status, reason = run_tests(
                first, f"tests/{package}", processes=options.workers, keep_bytecode=True
            )
            seconds = options.workers * (time.monotonic() - began)
            limits[package] = max(PATIENCE * seconds, LEAST_TIMEOUT_S)
            if status != 0:
                print(f"tests/{package} fails without any mutant: {reason}")
                return 1
        trees: SimpleQueue[Path] = SimpleQueue()
        trees.put(first)
        for number in range(1, options.workers):
            trees.put(Path(shutil.copytree(first, Path(folder) / f"tree{number}")))  # the bytecode, too
        with ThreadPoolExecutor(options.workers) as pool:
            verdicts = list(
                pool.map(lambda m: try_mutant(trees, m, limits[m.file.rpartition("/")[0]]), chosen)
            )
    print(f"{sum(verdicts)} of {len(verdicts)} mutants killed")
    return 0 if all(verdicts) and verdicts and not stale else 1


if __name__ == "__main__":
    sys.exit(main())
