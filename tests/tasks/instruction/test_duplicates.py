"""Candidates that say what others say: counted, and on request one of each kept."""

from __future__ import annotations

import json
import zlib
from itertools import combinations

import numpy as np
import pytest

import tarot

pytest.importorskip("transformers")

from tasks.instruction.data import Files
from tasks.instruction.duplicates import LOOKS_SAME, SAME, alike, nearly_same, one_of_each, same
from tasks.instruction.reading import Row

WORDS = [f"word{i}" for i in range(300)]


def rows_of(texts: list[str]) -> list[Row]:
    return [Row(f"r{i}", (("user", text), ("assistant", "yes"))) for i, text in enumerate(texts)]


def shared(one: str, other: str) -> float:
    """The slow and obvious way: of all runs of three words, the share that both have."""
    sets = []
    for text in (one, other):
        words = [*text.lower().split(), "yes"]
        sets.append({tuple(words[i : i + 3]) for i in range(len(words) - 2)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_word_for_word():
    talk = (("user", "q"), ("assistant", "a"))
    rows = [
        Row("a", talk),
        Row("b", (("user", " q\n"), ("assistant", "a"))),
        Row("c", (("user", "Q"), ("assistant", "a"))),
        Row("d", (*talk, *talk), masked=frozenset({1})),
        Row("e", (*talk, *talk)),
        Row("f", talk, more={1: {"reasoning_content": "so"}}),
        Row("g", (*talk, *talk)),
    ]
    assert same(rows).tolist() == [0, 0, 2, 3, 4, 5, 4]
    assert [(row.id, row.copies) for row in one_of_each(rows, same(rows))] == [
        ("a", 2),
        ("c", 1),
        ("d", 1),
        ("e", 2),
        ("f", 1),
    ]


def test_nearly_the_same_against_every_pair():
    """Texts of which up to a third of the words are others: those that are kept are no nearer to one another than the
    threshold, and those that are not are that near to the one that stands for them."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(12):
        words = rng.choice(WORDS, 60)
        for changed in (0, 1, 2, 5, 20):
            other = words.copy()
            other[rng.choice(60, changed, replace=False)] = rng.choice(WORDS, changed)
            texts.append(" ".join(other))
    found = nearly_same(rows_of(texts))
    kept = np.flatnonzero(found == np.arange(len(texts)))
    assert all(shared(texts[one], texts[other]) < SAME for one, other in combinations(kept, 2))
    assert all(shared(texts[place], texts[first]) >= SAME for place, first in enumerate(found) if place != first)
    assert 12 < len(kept) < 50 and set(found) == set(kept.tolist())


def test_other_answers_to_nearly_the_same_question_are_not_the_same():
    text = " ".join(WORDS)
    answers = ("it is the first of them", "it is the second one", "it is the first of them")
    rows = [Row(f"{i}", (("user", f"{text} {i}"), ("assistant", answer))) for i, answer in enumerate(answers)]
    assert nearly_same(rows).tolist() == [0, 1, 0]


def test_short_and_empty_texts():
    rows = [
        Row("a", (("prompt", ""), ("completion", "yes"))),
        Row("b", (("prompt", ""), ("completion", "no"))),
        Row("c", (("prompt", ""), ("completion", "YES"))),
    ]
    assert nearly_same(rows).tolist() == [0, 1, 0]


def test_what_looks_the_same_against_every_pair():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((150, 16))
    vectors = (centres[rng.integers(0, 150, 1200)] + 0.03 * rng.standard_normal((1200, 16))).astype(np.float32)
    vectors += 5
    found = alike(vectors)
    rows = vectors - vectors.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = rows @ rows.T
    slow = np.arange(len(rows))
    for place in range(len(rows)):
        earlier = [i for i in range(place) if slow[i] == i and cosine[place, i] >= LOOKS_SAME]
        slow[place] = earlier[0] if earlier else place
    assert (found != slow).mean() < 1e-3  # a pair at the threshold may fall to either side
    assert 100 < len(set(found.tolist())) < 300
    assert alike(np.zeros((3, 2), dtype=np.float32)).tolist() == [0, 1, 2]


@pytest.fixture
def pool(tmp_path):
    """400 rows, 200 of them three times."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 20)) for _ in range(400)]
    lines = [json.dumps({"prompt": text, "response": text[::-1]}) for text in texts + texts[:200] * 2]
    rng.shuffle(lines)
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    (tmp_path / "targets.jsonl").write_text("\n".join(lines[:1]))
    return tmp_path


def files(folder, **options) -> Files:
    return Files(str(folder / "pool.jsonl"), str(folder / "targets.jsonl"), **options)


def test_a_pool_that_repeats_itself_is_said(pool, caplog):
    rows = files(pool).candidates_of(0)
    assert len(rows) == 800 and {row.copies for row in rows} == {1}
    assert "400 of 800 candidates say what another says, word for word (task.deduplicate=exact keeps one" in caplog.text
    assert "nearly" not in caplog.text and len(caplog.messages) == 1


@pytest.mark.parametrize("how", ["exact", "minhash"])
def test_one_of_each_is_kept(pool, how, caplog):
    rows = files(pool, deduplicate=how).candidates_of(0)
    assert len(rows) == len({row.messages for row in rows}) == 400
    assert sorted(row.copies for row in rows) == [1] * 200 + [3] * 200
    assert "warning" not in caplog.text


@pytest.mark.parametrize("how", [None, "exact", "minhash"])
def test_what_is_selected_of_a_pool_that_repeats_itself(pool, how):
    """Copies are equally near. Features are those of the text."""
    rows = files(pool, deduplicate=how).candidates_of(0)
    features = [np.random.default_rng(zlib.crc32(row.messages[0][1].encode())).standard_normal(16) for row in rows]
    targets = np.random.default_rng(1).standard_normal((20, 16))
    chosen = tarot.select(np.array(features), targets, "tarot_fixed", size=80, whitening=None)
    distinct = {rows[i].messages for i in chosen.indices}
    assert len(chosen) == 80
    assert len(distinct) == 80 if how else len(distinct) < 60
