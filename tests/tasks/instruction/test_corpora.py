"""What instruction tuning reads: the embedded skills, answered again in another way; MMLU and BBH to the letter."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tarot import InputError

pytest.importorskip("transformers")

from tasks.instruction import skills
from tasks.instruction.reading import check_ids
from tasks.instruction.skills import NOISE, SKILLS, SPLITS, TARGETS, Corpus, general
from tasks.instruction.targets import bbh_questions, bbh_targets, exact_match, mmlu_questions, mmlu_targets
from tasks.instruction.template import LessTemplate

SMALL = Corpus(candidates=400, targets=30, validation=30, test=60)
ROUND = {"days": "monday tuesday wednesday thursday friday saturday sunday monday tuesday wednesday",
         "months": "january february march april may june july august september october november december january "
         "february march"}  # fmt: skip
WORDS = {word: value for value, word in enumerate(skills.NUMBERS)}
FACTORS = {"minutes": {"hours": 60}, "seconds": {"minutes": 60}, "hours": {"days": 24}, "days": {"weeks": 7},
           "months": {"years": 12}, "inches": {"feet": 12}, "centimetres": {"metres": 100}, "feet": {"yards": 3},
           "grams": {"kilograms": 1000}, "pieces": {"dozens": 12}}  # fmt: skip


def solve(skill: str, question: str) -> str:
    """The answer, from the words of the question alone."""
    words = question.lower().replace("?", " ").replace(",", " ").replace(":", " ").replace(".", " ").split()
    if skill == "arithmetic":
        numbers = [WORDS[word] for word in words if word in WORDS]
        return skills.NUMBERS[numbers[0] + (-1 if "minus" in words else 1) * numbers[1]]
    if skill == "dates":
        unit = "days" if "days" in words else "months"
        names = ROUND[unit].split() if "after" in words else ROUND[unit].split()[::-1]
        start = next(word for word in words if word in names)
        return names[names.index(start) + next(int(word) for word in words if word.isdigit())]
    if skill == "sorting":
        return " ".join(map(str, sorted(int(word) for word in words if word.isdigit())))
    if skill == "units":
        known = [word for word in words if word in FACTORS or any(word in larger for larger in FACTORS.values())]
        large, small = known if known[0] in FACTORS.get(known[1], {}) else known[::-1]
        return str(FACTORS[small][large] * next(int(word) for word in words if word.isdigit()))
    if skill == "counting":
        wanted, *rest = [word for word in words if len(word) == 1 and word in "abc"]
        return str(rest[-5:].count(wanted))
    if skill == "letters":
        listed = [word for word in words if len(word) == 1]
        return listed[0] if "first" in words else listed[-1]
    if skill == "opposites":
        pairs = dict(pair.split() for pair in skills.OPPOSITES.split(","))
        both = pairs | {other: one for one, other in pairs.items()}
        asked = next(word for word in reversed(words[:-3] if words[0] == "if" else words) if word in both)
        return both[asked]
    return str(max(int(word) for word in words if word.isdigit()))


# --- skills ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right(split):
    corpus = Corpus(candidates=800, test=200, wanted=tuple(SKILLS))
    answered = Counter()
    for row in corpus.rows(split):
        (_, question), (_, answer) = row.messages
        if row.dataset in SKILLS:
            assert answer == solve(row.dataset, question), row
            answered[row.dataset] += 1
        elif row.dataset == "wrong_answer":
            assert answer != solve(row.group, question), row
            answered["wrong"] += 1
    assert set(answered) - {"wrong"} == set(SKILLS) and min(answered.values()) >= 5


def _about(skill: str, question: str) -> bool:
    """Whether the skill is one that asks so."""
    return any(all(part.strip() in question for part in _fixed(pattern)) for pattern in SKILLS[skill].asked)


def _fixed(pattern: str) -> list[str]:
    parts = []
    for part in pattern.split("{"):
        parts.append(part.split("}")[-1])
    return parts


def test_the_general_corpus_is_right_and_asks_in_another_way():
    rows = general(400)
    for row in rows:
        (_, question), (_, answer) = row.messages
        asked = question.replace("not ", "opposite ") if row.group == "opposites" else question
        assert answer == solve(row.group, asked), row
        assert not any(_about(skill, question) for skill in SKILLS), row
    assert set(Counter(row.group for row in rows)) == set(SKILLS)


def test_what_the_candidates_are():
    rows = SMALL.rows("candidates")
    counts = Counter(row.dataset for row in rows)
    assert set(counts) == {*SKILLS, *NOISE}
    assert sum(counts[kind] for kind in NOISE) == 120 and counts["wrong_answer"] == 60
    assert all(abs(counts[skill] - 35) <= 1 for skill in SKILLS)
    for row in rows:
        assert row.tag == ("target" if row.dataset in TARGETS else row.dataset)
        assert "tag" not in row.raw and row.raw["id"] == row.id  # hidden
    assert counts["wrong_answer"] and len({row.dataset for row in rows[:60]}) > 8  # in random order
    for split in ("targets", "validation", "test"):
        found = Counter(row.group for row in SMALL.rows(split))
        assert set(found) == set(TARGETS) and max(found.values()) == min(found.values())
        assert all(row.tag == "target" for row in SMALL.rows(split))
    check_ids(row for split in SPLITS for row in SMALL.rows(split))


def test_no_problem_is_in_two_splits():
    """Of what is asked only the facts count, not the words around them."""

    def problems(split: str) -> set[tuple[str, ...]]:
        corpus = Corpus(candidates=3000, targets=300, validation=300, test=300, wanted=tuple(SKILLS), noise=0)
        return {(row.dataset, *_facts(row.dataset, row.messages[0][1])) for row in corpus.rows(split)}

    found = {split: problems(split) for split in SPLITS}
    assert min(map(len, found.values())) > 100
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not found[one] & found[other]


def _facts(skill: str, question: str) -> list[str]:
    """What is particular to the problem: words that no phrasing of the skill has."""
    phrases = set(
        " ".join(pattern.lower() for pattern in SKILLS[skill].asked).replace("{", " ").replace("}", " ").split()
    )
    words = question.lower().replace("?", " ").replace(",", " ").replace(":", " ").replace(".", " ").split()
    plain = {phrase.strip("?,:.") for phrase in phrases}
    kept = [word for word in words if word not in plain or len(word) == 1 or word in ("first", "last")]
    return sorted(kept) if skill in ("dates", "units") else kept


def test_same_seed_same_bytes():
    def digest(seed: int) -> str:
        corpus = Corpus(candidates=200, targets=20, validation=20, test=20, seed=seed)
        rows = [row.raw for split in SPLITS for row in corpus.rows(split)] + [row.raw for row in general(100, seed)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    assert digest(0) == digest(0) != digest(1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"wanted": ("cooking",)}, "wanted must name skills"),
        ({"wanted": ()}, "wanted must name skills"),
        ({"targets": 0}, "targets must be at least 1"),
        ({"noise": 1.0}, r"noise must be in \[0, 1\)"),
    ],
)
def test_errors_of_the_corpus(options, says):
    with pytest.raises(InputError, match=says):
        Corpus(**options)
    with pytest.raises(InputError, match="split must be one of"):
        Corpus().rows("train")


# --- MMLU and BBH, in small files of their layout ---------------------------------------------------------------------


@pytest.fixture
def mmlu(tmp_path) -> Path:
    table = {
        "dev": [["What is 1+1?", "1", "2.0", '"two"', "a, b", "B"]]
        + [[f"Q{i}\nagain", *"wxyz", "D"] for i in range(5)],
        "val": [["V", *"wxyz", "A"]],
        "test": [[f"T{i}", *"wxyz", "C"] for i in range(9)],
    }
    for split, rows in table.items():
        (tmp_path / split).mkdir()
        for subject in ("high_school_physics", "anatomy"):
            with open(tmp_path / split / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
    return tmp_path


@pytest.fixture
def bbh(tmp_path) -> Path:
    text = "Do it.\n\nCarefully.\n\n" + "\n\n".join(
        f"Q: q{i}\nA: Let's think.\nSo the answer is ({i})." for i in range(3)
    )
    (tmp_path / "bbh-three-shot.json").write_text(json.dumps({"b_task": text, "a_task": text}))
    (tmp_path / "bbh").mkdir()
    examples = [{"input": f"i{i}", "target": f"({i})"} for i in range(7)]
    for task in ("a_task", "b_task"):
        (tmp_path / "bbh" / f"{task}.json").write_text(json.dumps({"canary": "c", "examples": examples}))
    return tmp_path


def test_mmlu_targets_to_the_letter(mmlu):
    rows = mmlu_targets(mmlu)
    assert [row.group for row in rows] == ["anatomy"] * 5 + ["high_school_physics"] * 5
    found = LessTemplate("</s>")(rows[5])
    assert found.text == (
        "<|user|>\nThe following are multiple choice questions (with answers) about high school physics.\n\n"
        'What is 1+1?\nA. 1\nB. 2.0\nC. "two"\nD. a, b\nAnswer:\n<|assistant|>\nThe answer is: B'
    )
    assert found.answer == " B" and rows[5].options == (" A", " B", " C", " D") and rows[5].answer == "B"


def test_mmlu_questions_behind_examples(mmlu):
    rows = mmlu_questions(mmlu, shots=2)
    assert len(rows) == 18
    assert rows[0].messages[0][1] == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        'What is 1+1?\nA. 1\nB. 2.0\nC. "two"\nD. a, b\nAnswer: B\n\n'
        "Q0\nagain\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\nT0\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    )
    some = mmlu_questions(mmlu, per_subject=3, seed=1)
    assert len(some) == 6 and [r.id for r in some] == [r.id for r in mmlu_questions(mmlu, per_subject=3, seed=1)]
    short = mmlu_questions(mmlu, shots=5, fits=lambda row: row.messages[0][1].count("Answer:") <= 4)
    assert {row.messages[0][1].count("Answer:") for row in short} == {4}
    assert len(mmlu_questions(mmlu, "val")) == 2


def test_errors_of_mmlu(mmlu):
    with pytest.raises(InputError, match="split must be 'val' or 'test'"):
        mmlu_questions(mmlu, "dev")
    with pytest.raises(InputError, match=r"shots must be 0\.\.5"):
        mmlu_questions(mmlu, shots=6)
    with pytest.raises(InputError, match=r"holds no \*_dev\.csv"):
        mmlu_targets(mmlu / "test")
    path = mmlu / "dev" / "anatomy_dev.csv"
    path.write_text("q,a,b,c,d,A\n" * 4)
    with pytest.raises(InputError, match="anatomy has 4 questions of the 5"):
        mmlu_targets(mmlu)
    path.write_text('"a\nb",a,b,c,d,A\nq,a,b,c,d,E\n')
    with pytest.raises(InputError, match=r"anatomy_dev\.csv:3 must be a question"):
        mmlu_targets(mmlu)


def test_bbh_targets_to_the_letter(bbh):
    rows = bbh_targets(bbh)
    assert len(rows) == 6 and [row.group for row in rows] == ["b_task"] * 3 + ["a_task"] * 3
    found = LessTemplate("</s>")(rows[1])
    assert found.text == (
        "<|user|>\nDo it.\n\nCarefully.\n\nQ: q0\nA: Let's think.\nSo the answer is (0).\n\n"
        "Q: q2\nA: Let's think.\nSo the answer is (2).\n\nQ: q1\n<|assistant|>\nA: Let's think.\nSo the answer is (1)."
    )
    assert found.answer == " Let's think.\nSo the answer is (1)." and rows[1].answer == "(1)"


def test_what_a_mac_leaves_behind_is_no_corpus(mmlu, bbh):
    """Both fixtures share one folder."""
    known = [row.id for row in (*mmlu_targets(mmlu), *bbh_targets(bbh))]
    for name in ("dev/._anatomy_dev.csv", "bbh/._a_task.json"):
        (mmlu / name).write_bytes(b"\0\5\x16\7 Mac OS X")
    assert [row.id for row in (*mmlu_targets(mmlu), *bbh_targets(bbh))] == known
    assert len(bbh_questions(bbh)) == 14


def test_bbh_questions(bbh):
    rows = bbh_questions(bbh, shots=1)
    assert len(rows) == 14
    assert rows[2].messages == (
        ("user", "Do it.\n\nCarefully.\n\nQ: q0\nA: Let's think.\nSo the answer is (0).\n\nQ: i2"),
        ("assistant", "A: So the answer is (2)."),
    )
    assert rows[2].answer == "(2)" and len(bbh_questions(bbh, per_task=2)) == 4
    (bbh / "bbh" / "a_task.json").unlink()
    with pytest.raises(InputError, match="lacks BBH's task a_task"):
        bbh_questions(bbh)
    (bbh / "bbh-three-shot.json").write_text(json.dumps({"a_task": "Do it.\n\nQ: q"}))
    with pytest.raises(InputError, match="task a_task must be a description and three examples"):
        bbh_targets(bbh)
    (bbh / "bbh-three-shot.json").unlink()
    with pytest.raises(InputError, match="is not there"):
        bbh_targets(bbh)


@pytest.mark.parametrize(
    ("said", "answer", "same"),
    [
        ("Let's think. So the answer is (B). And so on.", "(B)", True),
        ("So the answer is b.", "(B)", True),
        (" valid \n\nQ: next", "valid", True),
        ("So the answer is 12.", "13", False),
        ("", "no", False),
        ("So the answer is ) ].", ") ]", True),
        ("So the answer is } ].", ") ]", False),
    ],
)
def test_exact_match(said, answer, same):
    assert exact_match(said, answer) is same


# --- the real files ---------------------------------------------------------------------------------------------------

DATA = Path(os.environ.get("TAROT_DATA", "")) / "instruct" / "eval"
real = pytest.mark.skipif(
    not os.environ.get("TAROT_DATA") or not DATA.is_dir(), reason="TAROT_DATA has no instruct/eval"
)


@real
def test_how_many_there_are():
    mmlu, bbh = mmlu_targets(DATA / "mmlu"), bbh_targets(DATA / "bbh")
    assert len(mmlu) == 285 and set(Counter(row.group for row in mmlu).values()) == {5}
    assert len(bbh) == 81 and set(Counter(row.group for row in bbh).values()) == {3}
    assert len({row.group for row in mmlu}) == 57 and len({row.group for row in bbh}) == 27
    check_ids(mmlu + bbh)
    assert all(row.answer for row in mmlu + bbh)
    assert len(mmlu_questions(DATA / "mmlu", "val")) == 1531 and len(mmlu_questions(DATA / "mmlu")) == 14042
    assert len(bbh_questions(DATA / "bbh")) == 6511 and len(bbh_questions(DATA / "bbh", per_task=40)) == 1080


@real
def test_bbh_targets_against_the_prompts_of_the_benchmark():
    """The worked examples are those of cot-prompts, whose answers the targets have one by one."""
    rows = bbh_targets(DATA / "bbh")
    assert len(rows) > 50
    for row in rows:
        prompt = (DATA / "bbh" / "cot-prompts" / f"{row.group}.txt").read_text(encoding="utf-8")
        found = LessTemplate("</s>")(row)
        question = found.prompt.removesuffix("\n<|assistant|>\nA:").rsplit("\n\nQ: ", 1)[1]
        assert f"\n\nQ: {question}\nA:{found.answer}" in prompt
        assert found.prompt.startswith("<|user|>\n" + prompt.split("-----\n", 1)[1].split("\n\nQ: ", 1)[0])
        assert found.prompt.count("\nA:") == 3
