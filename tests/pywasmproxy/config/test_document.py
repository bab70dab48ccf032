"""YAML to a tree with lines: typing of scalars, duplicate keys, aliases, bounds, complaints."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pywasmproxy.config import document
from pywasmproxy.config.document import parse, plain
from pywasmproxy.config.errors import ConfigError


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("+7", 7),
        ("0x1F", 31),
        ("0", 0),
        ("010", "010"),  # octal for some readers, ten for others
        ("1_000", "1_000"),
        ("1:30", "1:30"),  # YAML 1.1 would make 90 of it
        ("2020-01-01", "2020-01-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.00s", "1.00s"),
        ("true", True),
        ("Yes", True),
        ("ON", True),
        ("off", False),
        ("n", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!custom 5", 5),
        ("|\n  1", "1"),
        (">\n  1", "1"),
    ],
)
def test_scalars_are_typed_as_envoy_types_them(written: str, value: object) -> None:
    found = plain(parse(f"key: {written}", "f"))["key"]
    assert found == value
    assert type(found) is type(value)


def test_lines_are_kept() -> None:
    tree = parse("# comment\na:\n  b:\n  - x\n  - y: 1\n", "f")
    assert isinstance(tree, document.Mapping)
    line, inner = tree.entries["a"]
    assert (tree.line, line) == (2, 2)
    assert isinstance(inner, document.Mapping)
    items = inner.entries["b"][1]
    assert isinstance(items, document.Sequence)
    assert [item.line for item in items.items] == [4, 5]


def test_order_is_kept() -> None:
    assert list(plain(parse("{z: 1, a: 2, m: 3}", "f"))) == ["z", "a", "m"]


def test_json_is_yaml() -> None:
    assert plain(parse('{"a": [1, true, null, "x\\u00e9"], "b": {}}', "f")) == {
        "a": [1, True, None, "xé"],
        "b": {},
    }


def test_aliases_repeat_what_they_name() -> None:
    text = "a: &list [1, {x: z}]\nb: *list\nc: &word hello\n*word : 3\n&k d: *word\ne: *k\n"
    assert plain(parse(text, "f")) == {
        "a": [1, {"x": "z"}],
        "b": [1, {"x": "z"}],
        "c": "hello",
        "hello": 3,
        "d": "hello",
        "e": "d",
    }


def test_a_key_tagged_ignore_only_holds_anchors() -> None:
    text = "!ignore anchors:\n  host: &host {address: a}\nreal: *host\n!ignore more: 1\n"
    assert plain(parse(text, "f")) == {"real": {"address": "a"}}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, "key 'c' stands twice in one mapping (first in line 3)"),
        ("a: {x: 1,\n  x: 1}", 2, "key 'x' stands twice in one mapping (first in line 1)"),
        ("a: 1\n---\nb: 2\n", 2, "a second YAML document begins here; one file holds one configuration"),
        ("x: y\na: *nowhere", 2, "alias *nowhere names no anchor above it"),
        ("a: &self\n- *self", 2, "alias *self stands inside the value it names"),
        ("a: &x [1]\n*x : 2", 2, "a key must be text, not a list or a mapping"),
        ("a: 1\n? [b]\n: c", 2, "a key must be text, not a list or a mapping"),
        ("a: 1\n? {b: c}\n: c", 2, "a key must be text, not a list or a mapping"),
        ("", 0, "the configuration is empty"),
        ("# nothing\n", 0, "the configuration is empty"),
        ("[" * 101, 1, "nested more than 100 levels deep"),
        ("[" * 50_000, 1, "nested more than 100 levels deep"),
        ("- " * 50_000, 1, "nested more than 100 levels deep"),
    ],
)
def test_refused(text: str, line: int, message: str) -> None:
    error = refused(text)
    assert (error.file, error.line, error.path, error.message) == ("f.yaml", line, "", message)


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\n\tb: 2", 2), ("a: [1\nb: 2\n", 2), ("a: b: c", 1), ("a: 'x", 1), ("%X\na", 1)]
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str, line: int) -> None:
    error = refused(text)
    assert error.message.startswith("not valid YAML: ")
    assert error.line in (line, line + 1)  # the two parsers of the library point to either side


def test_control_characters_are_refused() -> None:
    assert refused("a: \x01").message.startswith("not valid YAML: ")


def test_nesting_up_to_the_bound_is_fine() -> None:
    parse("[" * 100 + "]" * 100, "f")


def test_alias_bombs_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    error = refused("\n".join(lines))
    assert error.message == "aliases multiply this document beyond 100000 values"
    assert 4 <= error.line <= 6


def test_many_aliases_of_small_things_are_fine() -> None:
    tree = parse("a: &a {x: 1}\nb: [" + ", ".join(["*a"] * 5000) + "]", "f")
    assert len(plain(tree)["b"]) == 5000


def test_the_portable_parser_gives_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'a: &x [1, \'two\', 3.5, yes, null]\nb:\n  c: *x\n  d: |\n    text\n  "e": "1"\n'
    fast = parse(text, "f")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert parse(text, "f") == fast
    assert refused("a: 1\na: 2").line == 2


#: Booleans for Envoy's reader and so for ours; the library writes them without quotes, for it they are text.
LETTERS = ("y", "Y", "n", "N")

#: Numbers for Envoy's reader and so for ours; for YAML 1.1 a number with an exponent has a point.
EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")

TEXT = st.text().filter(lambda text: text not in LETTERS and not EXPONENT.fullmatch(text))

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_the_library_dumps_comes_back(value: object) -> None:
    text = yaml.safe_dump(value, sort_keys=False, default_style='"' if isinstance(value, str) else None)
    expected = yaml.safe_load(text)

    def loose(found: object) -> object:
        """Keys as text: ours always are; YAML 1.1 words that only the library takes for something else."""
        if isinstance(found, dict):
            return {str(key): loose(child) for key, child in found.items()}
        if isinstance(found, list):
            return [loose(child) for child in found]
        return found

    assert loose(plain(parse(text, "f"))) == loose(expected)


def test_importing_the_package_does_not_import_yaml() -> None:
    code = (
        "import sys; import pywasmproxy.config, pywasmproxy.config.model, pywasmproxy.config.envoy; "
        "print('yaml' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
