"""The pinned corpus: our verdict on each module is the stored one of the reference."""

from __future__ import annotations

import json
import zipfile

import pytest

from tests.fuzz import verdict
from tests.fuzz.campaign import CORPUS

PARTS = 10


@pytest.fixture(scope="module")
def corpus() -> dict[str, tuple[bytes, bool]]:
    with zipfile.ZipFile(CORPUS) as archive:
        stored = json.loads(archive.read("verdicts.json"))
        return {name: (archive.read(name), accepted) for name, accepted in stored.items()}


def test_the_corpus_is_whole(corpus: dict[str, tuple[bytes, bool]]) -> None:
    kinds = [name.partition("/")[0] for name in corpus]
    assert kinds.count("smith") >= 195
    assert kinds.count("mutant") >= 495
    assert 50 < sum(not accepted for _, accepted in corpus.values()) < len(corpus) - 50


@pytest.mark.parametrize("part", range(PARTS))
def test_same_verdict_as_the_reference(part: int, corpus: dict[str, tuple[bytes, bool]]) -> None:
    wrong = {
        name: verdict.ours(data)
        for name, (data, accepted) in list(corpus.items())[part::PARTS]
        if (verdict.ours(data)[0] == "valid") != accepted
    }
    assert not wrong
