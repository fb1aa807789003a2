"""Small skills made of code, each asked for in several ways, for a language model that is small itself.

Candidates show skills, of which the targets want only some, and noise. In the general corpus, on which a model is
trained before it is tuned, every skill is asked for in one brief way that no other row uses: such a model has the
facts, and has to learn what is meant by the other ways. Which problems candidates may have and which are tested is
decided by the problem itself, so that no two splits share one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tarot import InputError
from tarot.common import Count, check_options, within
from tasks.instruction.reading import Row

Facts = dict[str, str]  # what the phrasings of a problem are filled with
Draw = Callable[[np.random.Generator], tuple[Facts, str]]  # a problem and its answer

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
)  # fmt: skip
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
UNITS = {("hours", "minutes"): 60, ("minutes", "seconds"): 60, ("days", "hours"): 24, ("weeks", "days"): 7,
         ("years", "months"): 12, ("feet", "inches"): 12, ("metres", "centimetres"): 100, ("yards", "feet"): 3,
         ("kilograms", "grams"): 1000, ("dozens", "pieces"): 12}  # fmt: skip
OPPOSITES = (
    "hot cold,big small,fast slow,high low,light dark,old new,rich poor,hard soft,wet dry,full empty,early late,"
    "open closed,strong weak,happy sad,long short,thick thin,near far,clean dirty,deep shallow,loud quiet,sweet sour,"
    "smooth rough,wide narrow,young aged,brave timid,cheap dear,sharp blunt,true false,safe risky,heavy airy,"
    "first last,inside outside,above below,left right,up down,day night,summer winter,friend enemy,love hate,win lose,"
    "buy sell,push pull,give take,start stop,ask reply,laugh cry,rise fall,enter leave,remember forget,build destroy"
)
LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Skill:
    """draw: a problem. brief: how the general corpus asks for it. asked: how all other rows do."""

    draw: Draw
    brief: str
    asked: tuple[str, ...]


def _arithmetic(rng: np.random.Generator) -> tuple[Facts, str]:
    a, b = (int(value) for value in rng.integers(0, 10, 2))
    if rng.random() < 0.5:
        return {"a": NUMBERS[a], "b": NUMBERS[b], "word": "plus"}, NUMBERS[a + b]
    return {"a": NUMBERS[a + b], "b": NUMBERS[b], "word": "minus"}, NUMBERS[a]


def _dates(rng: np.random.Generator) -> tuple[Facts, str]:
    unit, names = ("days", DAYS) if rng.random() < 0.5 else ("months", MONTHS)
    start, step = int(rng.integers(len(names))), int(rng.integers(1, 4))
    word, sign = ("after", 1) if rng.random() < 0.5 else ("before", -1)
    facts = {"n": str(step), "unit": unit, "word": word, "start": names[start]}
    return facts, names[(start + sign * step) % len(names)]


def _letters(rng: np.random.Generator, count: int, alphabet: int) -> list[str]:
    return [LETTERS[int(value)] for value in rng.integers(0, alphabet, count)]


def _sorting(rng: np.random.Generator) -> tuple[Facts, str]:
    digits = [str(int(value)) for value in rng.integers(0, 10, 3)]
    return {"list": " ".join(digits)}, " ".join(sorted(digits))


def _units(rng: np.random.Generator) -> tuple[Facts, str]:
    (large, small), factor = list(UNITS.items())[int(rng.integers(len(UNITS)))]
    count = int(rng.integers(2, 13))
    return {"n": str(count), "large": large, "small": small}, str(count * factor)


def _counting(rng: np.random.Generator) -> tuple[Facts, str]:
    letters = _letters(rng, 5, 3)
    wanted = LETTERS[int(rng.integers(3))]
    return {"list": " ".join(letters), "letter": wanted}, str(letters.count(wanted))


def _opposites(rng: np.random.Generator) -> tuple[Facts, str]:
    pairs = [pair.split() for pair in OPPOSITES.split(",")]
    one, other = pairs[int(rng.integers(len(pairs)))]
    return ({"a": one}, other) if rng.random() < 0.5 else ({"a": other}, one)


def _comparison(rng: np.random.Generator) -> tuple[Facts, str]:
    a, b = (int(value) for value in rng.choice(100, 2, replace=False))
    return {"a": str(a), "b": str(b)}, str(max(a, b))


def _letter(rng: np.random.Generator) -> tuple[Facts, str]:
    letters = _letters(rng, int(rng.integers(3, 6)), len(LETTERS))
    word, place = ("first", 0) if rng.random() < 0.5 else ("last", -1)
    return {"list": " ".join(letters), "word": word}, letters[place]


SKILLS: Mapping[str, Skill] = {
    "arithmetic": Skill(
        _arithmetic,
        "{a} {word} {b}",
        ("What is {a} {word} {b}?", "Compute {a} {word} {b}.", "Tell me the result of {a} {word} {b}.",
         "I have {a} {word} {b}. How much is it?"),
    ),
    "dates": Skill(
        _dates,
        "{n} {unit} {word} {start}",
        ("Which one comes {n} {unit} {word} {start}?", "What do we have {n} {unit} {word} {start}?",
         "Name what is {n} {unit} {word} {start}.", "It is {start}. What is it {n} {unit} {word}?"),
    ),
    "sorting": Skill(
        _sorting,
        "sort {list}",
        ("Sort {list} from small to large.", "Put these digits in ascending order: {list}",
         "Arrange {list}, the smallest first.", "Which order is right for {list}?"),
    ),
    "units": Skill(
        _units,
        "{n} {large} to {small}",
        ("How many {small} are {n} {large}?", "Convert {n} {large} to {small}.", "Give {n} {large} in {small}.",
         "There are {n} {large}. How many {small} is that?"),
    ),
    "letters": Skill(
        _letter,
        "{word} of {list}",
        ("What is the {word} letter of {list}?", "Name the {word} one: {list}", "Look at {list}. Which is {word}?",
         "Give me the {word} of {list}."),
    ),
    "counting": Skill(
        _counting,
        "number of {letter} in {list}",
        ("How often is {letter} in {list}?", "Count every {letter} in {list}.",
         "How many times do you see {letter}: {list}", "Find each {letter} in {list} and say how many."),
    ),
    "opposites": Skill(
        _opposites,
        "not {a}",
        ("What is the opposite of {a}?", "Say the contrary of {a}.", "Which word means the reverse of {a}?",
         "If it is not {a}, what is it?"),
    ),
    "comparison": Skill(
        _comparison,
        "{a} or {b}",
        ("Which is larger, {a} or {b}?", "Choose the greater of {a} and {b}.", "Is {a} or {b} more?",
         "Of {a} and {b}, name the bigger number."),
    ),
}  # fmt: skip
NOISE = ("wrong_answer", "shuffled_words", "off_format", "babble")
TARGETS = ("sorting", "units", "letters")
SPLITS = {
    "candidates": (0, 11),
    "targets": (11, 13),
    "validation": (13, 15),
    "test": (15, 20),
}  # twentieths of problems


@dataclass(frozen=True)
class Corpus:
    """What is made: how many rows of each split, and which skills the targets want.

    noise: share of the candidates that is noise, half of it wrong answers. seed: everything follows from it.
    """

    candidates: Count = 1600
    targets: Count = 48
    validation: Count = 96
    test: Count = 300
    wanted: tuple[str, ...] = TARGETS
    noise: Annotated[float, within("[0, 1)")] = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        check_options(self)
        unknown = sorted(set(self.wanted) - set(SKILLS))
        if unknown or not self.wanted:
            raise InputError(f"wanted must name skills of {', '.join(SKILLS)}; it is {list(self.wanted)}")

    def rows(self, split: str) -> list[Row]:
        """The rows of a split: candidates of all skills and noise in random order, the others of wanted skills in turn.

        A row's tag is "target" where it is a true answer to a wanted skill, else its skill or kind of noise; its group
        is the skill that it asks for, or would without the noise.
        """
        if split not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}; it is {split!r}")
        rng = np.random.default_rng([self.seed, list(SPLITS).index(split)])
        count = getattr(self, split)
        if split != "candidates":
            kinds = [self.wanted[i % len(self.wanted)] for i in range(count)]
            return [self._row(kind, split, i, rng) for i, kind in enumerate(kinds)]
        noisy = round(self.noise * count)
        skills = list(SKILLS)
        kinds = [("wrong_answer", *NOISE[1:], "wrong_answer", "wrong_answer")[i % 6] for i in range(noisy)]
        kinds += [skills[i % len(skills)] for i in range(count - noisy)]
        return [self._row(kinds[k], split, i, rng) for i, k in enumerate(rng.permutation(count).tolist())]

    def _row(self, kind: str, split: str, index: int, rng: np.random.Generator) -> Row:
        skill = kind if kind in SKILLS else list(SKILLS)[int(rng.integers(len(SKILLS)))]
        question, answer = ask(SKILLS[skill], rng, split)
        if kind in NOISE:
            question, answer = _spoilt(kind, SKILLS[skill], question, answer, rng)
        tag = "target" if kind in self.wanted else kind
        return _row(f"{split}_{index}", question, answer, kind, tag, skill)


def general(count: int, seed: int = 0) -> list[Row]:
    """What a model learns before it is tuned: `count` conversations in which all skills are asked for briefly."""
    rng = np.random.default_rng([seed, len(SPLITS)])
    names, rows = list(SKILLS), []
    for index in range(count):
        name = names[int(rng.integers(len(names)))]
        facts, answer = SKILLS[name].draw(rng)
        rows.append(_row(f"general_{index}", SKILLS[name].brief.format(**facts), answer, name, name, name))
    return rows


def _row(identity: str, question: str, answer: str, dataset: str, tag: str, group: str) -> Row:
    messages = (("user", question), ("assistant", answer))
    written = [{"role": role, "content": content} for role, content in messages]
    return Row(identity, messages, dataset, tag, {"id": identity, "dataset": dataset, "messages": written}, group=group)


def ask(skill: Skill, rng: np.random.Generator, split: str) -> tuple[str, str]:
    """A question and its answer, of a problem that belongs to the split."""
    low, high = SPLITS[split]
    while True:
        facts, answer = skill.draw(rng)
        if low <= zlib.crc32(json.dumps(facts, sort_keys=True).encode()) % 20 < high:
            return skill.asked[int(rng.integers(len(skill.asked)))].format(**facts), answer


def _spoilt(kind: str, skill: Skill, question: str, answer: str, rng: np.random.Generator) -> tuple[str, str]:
    if kind == "wrong_answer":
        wrong = answer
        while wrong == answer:
            wrong = skill.draw(rng)[1]
        return question, wrong
    if kind == "shuffled_words":
        return _shuffled(question, rng), _shuffled(f"{answer} {question}", rng)
    if kind == "off_format":
        code = int(rng.integers(10, 100))
        return question, (f'{{"status": {code}, "result": null}}', f"<p>page {code}</p>", f"Error {code}: try again")[
            code % 3
        ]
    return _babble(rng, 5, 9), _babble(rng, 1, 5)


def _babble(rng: np.random.Generator, fewest: int, most: int) -> str:
    """Words that are none."""
    syllables = ("ba", "ko", "lu", "mi", "ne", "ra", "su", "ti", "vo", "ze")
    count = int(rng.integers(fewest, most + 1))
    return " ".join("".join(syllables[int(i)] for i in rng.integers(0, 10, rng.integers(1, 4))) for _ in range(count))


def _shuffled(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    return " ".join(words[i] for i in rng.permutation(len(words)))
