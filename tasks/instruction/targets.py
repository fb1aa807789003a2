"""MMLU and BBH, as targets and as questions to be tested on, from their own files.

Targets are what LESS takes (theory.md 2): of MMLU the 57 x 5 development questions without examples, of BBH
each of a task's three worked examples behind the other two. Their answers begin with a few words that are given and end
without an end token, so what is learned is LESS's completion to the letter. One thing is not: LESS reads MMLU's tables
as numbers where it can and so shows some options as `2.0` that say `2`; here they stand as in the file.
"""

from __future__ import annotations

import csv
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tarot import InputError
from tarot.common import check_is_file, entries, read_json
from tasks.instruction.reading import Row

LETTERS = "ABCD"
SHOTS = 5  # development questions of a subject
MMLU_GIVEN, BBH_GIVEN = "The answer is:", "A:"
_SAID = re.compile(r"So the answer is (.*?)\.")


@dataclass(frozen=True)
class Question:
    """One of MMLU's. options: of the letters A to D. answer: the right letter."""

    subject: str
    text: str
    options: tuple[str, ...]
    answer: str
    where: str

    def shown(self) -> str:
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True)]
        return "\n".join([self.text, *lines, "Answer:"])

    def row(self, identity: str, examples: list[Question]) -> Row:
        """The question behind solved ones of its subject, as a row whose answer is the letter."""
        subject = self.subject.replace("_", " ")
        prompt = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        prompt += "".join(f"{example.shown()} {example.answer}\n\n" for example in examples) + self.shown()
        return Row(
            identity,
            (("user", prompt), ("assistant", f"{MMLU_GIVEN} {self.answer}")),
            dataset="mmlu",
            tag="mmlu",
            raw={"id": identity, "subject": self.subject},
            group=self.subject,
            prefill=MMLU_GIVEN,
            open=True,
            options=tuple(f" {letter}" for letter in LETTERS),
            answer=self.answer,
            where=self.where,
        )


def mmlu_targets(folder: str | Path) -> list[Row]:
    """Of every subject in folder/dev the first five questions, in the order of subjects and questions; group = subject.

    Raises InputError for a subject with fewer, and for what `mmlu_questions` refuses.
    """
    return [
        question.row(f"mmlu_dev_{subject}_{i}", [])
        for subject, questions in _subjects(Path(folder), "dev")
        for i, question in enumerate(_first(questions, SHOTS, subject, Path(folder)))
    ]


def mmlu_questions(
    folder: str | Path,
    split: str = "test",
    *,
    shots: int = 0,
    per_subject: int | None = None,
    seed: int = 0,
    fits: Callable[[Row], bool] | None = None,
) -> list[Row]:
    """The questions of folder/val or folder/test behind `shots` development questions.

    per_subject: no more than so many of each, drawn by `seed`. fits: whether a row fits the context; one that does not
    gets fewer examples.

    Raises InputError, with file:line, for a missing file, one that is no table, and a row that is no question.
    """
    if split not in ("val", "test"):
        raise InputError(f"MMLU's split must be 'val' or 'test' (targets are of dev); it is {split!r}")
    if not 0 <= shots <= SHOTS:
        raise InputError(f"MMLU's shots must be 0..{SHOTS}; it is {shots}")
    folder, rng, rows = Path(folder), np.random.default_rng(seed), []
    examples = dict(_subjects(folder, "dev")) if shots else {}
    for subject, questions in _subjects(folder, split):
        solved = _first(examples.get(subject, []), shots, subject, folder)
        for i in _some(len(questions), per_subject, rng):
            identity = f"mmlu_{split}_{subject}_{i}"
            of_shots = (questions[i].row(identity, solved[:count]) for count in range(shots, -1, -1))
            rows.append(_that_fits(of_shots, fits))
    return rows


def bbh_targets(folder: str | Path) -> list[Row]:
    """Of every task in folder/bbh-three-shot.json three examples, each behind the other two; group = task."""
    rows = []
    for task, (about, examples) in _three_shots(Path(folder)).items():
        for i, (question, answer) in enumerate(examples):
            others = [example for j, example in enumerate(examples) if j != i]
            rows.append(_bbh_row(f"bbh_shot_{task}_{i}", task, about, others, question, answer, None, str(folder)))
    return rows


def bbh_questions(
    folder: str | Path,
    *,
    shots: int = 3,
    per_task: int | None = None,
    seed: int = 0,
    fits: Callable[[Row], bool] | None = None,
) -> list[Row]:
    """The questions of folder/bbh/*.json behind the first `shots` worked examples; LESS takes 40 of each task.

    An exact match compares what is said after "So the answer is" (`exact_match`); a loss is of saying just that.
    per_task, seed, fits: as for MMLU.
    """
    folder, rng, rows = Path(folder), np.random.default_rng(seed), []
    if not 0 <= shots <= 3:
        raise InputError(f"BBH's shots must be 0..3; it is {shots}")
    shown = _three_shots(folder)
    files = {path.stem: path for path in entries(folder / "bbh") if path.suffix == ".json"}
    for lacking, place in (
        (sorted(set(shown) - set(files)), folder / "bbh"),
        (sorted(set(files) - set(shown)), folder / "bbh-three-shot.json"),
    ):
        if lacking:
            raise InputError(f"{place} lacks BBH's task {lacking[0]} ({len(lacking)} in all); fetch it again")
    for task, path in files.items():
        about, examples = shown[task]
        known = _json(path).get("examples", [])
        for i in _some(len(known), per_task, rng):
            if not all(isinstance(known[i].get(key), str) for key in ("input", "target")):
                raise InputError(f"{path}: example {i} lacks input or target (text); fetch it again")
            question, answer = f"Q: {known[i]['input']}", known[i]["target"]
            said = f" So the answer is {answer}."
            of_shots = (
                _bbh_row(f"bbh_{task}_{i}", task, about, examples[:count], question, said, answer, f"{path}[{i}]")
                for count in range(shots, -1, -1)
            )
            rows.append(_that_fits(of_shots, fits))
    return rows


def exact_match(said: str, answer: str) -> bool:
    """Whether a text gives the answer: what it says between "So the answer is" and the next full stop, else its first
    paragraph. Capitals and punctuation do not count, except for an answer that has nothing else (brackets to close)."""
    found = _SAID.search(said)
    text = found.group(1) if found else said.strip().split("\n\n")[0]
    return _normal(text) == _normal(answer) if _normal(answer) else text.split() == answer.split()


def _normal(text: str) -> str:
    return text.lower().translate(str.maketrans("", "", string.punctuation)).strip()


def _bbh_row(
    identity: str,
    task: str,
    about: str,
    examples: list[tuple[str, str]],
    question: str,
    said: str,
    answer: str | None,
    where: str,
) -> Row:
    prompt = f"{about}\n\n" + "".join(f"{q}\n{BBH_GIVEN}{a}\n\n" for q, a in examples) + question
    if answer is None and (found := _SAID.search(said)):
        answer = found.group(1)
    return Row(
        identity,
        (("user", prompt), ("assistant", f"{BBH_GIVEN}{said}")),
        dataset="bbh",
        tag="bbh",
        raw={"id": identity, "task": task},
        group=task,
        prefill=BBH_GIVEN,
        open=True,
        answer=answer,
        where=where,
    )


def _three_shots(folder: Path) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Task -> what it is about, and three pairs of a question ("Q: ...") and its worked answer (" Let's ...")."""
    path, tasks = folder / "bbh-three-shot.json", {}
    for task, text in _json(path).items():
        parts = text.split("\n\n") if isinstance(text, str) else []
        pairs = [part.split(f"\n{BBH_GIVEN}") for part in parts[-3:]]
        if len(parts) < 4 or any(len(pair) != 2 for pair in pairs):
            raise InputError(f"{path}: task {task} must be a description and three examples, blank lines between them")
        tasks[task] = ("\n\n".join(parts[:-3]).strip(), [(pair[0], pair[1]) for pair in pairs])
    return tasks


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} is not there; BBH is bbh-three-shot.json beside a folder bbh of 27 json files")
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} must hold a JSON object with something in it; fetch it again")
    return content


def _subjects(folder: Path, split: str) -> Iterator[tuple[str, list[Question]]]:
    inside = entries(folder / split) if (folder / split).is_dir() else []
    files = [path for path in inside if path.name.endswith(f"_{split}.csv")]
    if not files:
        raise InputError(f"{folder / split} holds no *_{split}.csv; MMLU is a folder with dev, val and test")
    for path in files:
        subject = path.name.removesuffix(f"_{split}.csv")
        yield subject, list(_questions(path, subject))


def _questions(path: Path, subject: str) -> Iterator[Question]:
    check_is_file(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader, line = csv.reader(file, strict=True), 1
        try:
            for cells in reader:
                if len(cells) != 6 or cells[5] not in tuple(LETTERS):
                    raise InputError(f"{path}:{line} must be a question, four options and a letter A to D")
                yield Question(subject, cells[0], tuple(cells[1:5]), cells[5], f"{path}:{line}")
                line = reader.line_num + 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{line} cannot be read as a table: {error}; fetch it again") from error


def _first(questions: list[Question], count: int, subject: str, folder: Path) -> list[Question]:
    if len(questions) < count:
        raise InputError(
            f"{folder / 'dev'}: {subject} has {len(questions)} questions of the {count} that are needed; fetch it again"
        )
    return questions[:count]


def _some(count: int, most: int | None, rng: np.random.Generator) -> list[int]:
    """Which of `count`: all, or `most` that are drawn, in their order."""
    if most is None or most >= count:
        return list(range(count))
    return sorted(rng.choice(count, most, replace=False).tolist())


def _that_fits(rows: Iterator[Row], fits: Callable[[Row], bool] | None) -> Row:
    """The first that fits, else the last."""
    for row in rows:
        if fits is None or fits(row):
            return row
    return row
