"""Where a task's conversations come from: skills made of code, a user's files, or LESS's."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from tarot import InputError
from tarot.common import Count, Natural, check_options, fingerprint, within
from tasks.instruction.duplicates import copies, nearly_same, one_of_each, same, say
from tasks.instruction.reading import Account, Row, check_ids, columns_of, read_rows
from tasks.instruction.skills import TARGETS, Corpus, general
from tasks.instruction.targets import bbh_questions, bbh_targets, mmlu_questions, mmlu_targets
from tasks.task import SPLITS, Split

log = logging.getLogger("tarot")
HELD_OUT, ALIKE = "held out", "saying what another says"  # why rows are not used
Rows = dict[Split, list[Row]]
Fits = Callable[[Row], bool]
Paths = str | Sequence[str] | Mapping[str, str]
Accounts = dict[Split, Account]


class Conversations(ABC):
    """tagged: whether it is known which candidates resemble the targets."""

    tagged: ClassVar[bool] = False

    @property
    def by_features(self) -> bool:
        """Whether one of the candidates that look the same to the language is to be kept."""
        return False

    @property
    def accounts(self) -> Mapping[Split, Account]:
        """Of splits that were read from files, once they are: what became of their rows."""
        return {}

    @abstractmethod
    def candidates_of(self, seed: int) -> list[Row]:
        """The candidates alone."""

    @abstractmethod
    def rows(self, seed: int, fits: Fits) -> Rows:
        """The conversations of every split; an id occurs once in all of them. fits: whether a row does not have to be
        cut, for what can be made shorter."""

    def general(self, seed: int) -> list[Row]:
        """What a language that is made on the spot learns first."""
        return self.candidates_of(seed)

    def recipe(self, seed: int, rows: Rows) -> dict[str, Any]:
        """What determines the splits, as plain data."""
        return {"kind": type(self).__name__, "seed": seed, "rows": {name: digest(rows[name]) for name in SPLITS}}


@dataclass(frozen=True)
class Skills(Conversations):
    """The embedded corpus (`tasks.instruction.skills`). general_rows: texts of the general corpus."""

    tagged: ClassVar[bool] = True

    candidates: Count = 1600
    targets: Count = 48
    validation: Count = 96
    test: Count = 300
    wanted: Sequence[str] = TARGETS
    noise: Annotated[float, within("[0, 1)")] = 0.3
    general_rows: Natural = 20000

    def __post_init__(self) -> None:
        check_options(self, "task.data")

    def _corpus(self, seed: int) -> Corpus:
        options = {key: value for key, value in asdict(self).items() if key not in ("wanted", "general_rows")}
        return Corpus(**options, wanted=tuple(self.wanted), seed=seed)

    def candidates_of(self, seed: int) -> list[Row]:
        return self._corpus(seed).rows("candidates")

    def rows(self, seed: int, fits: Fits) -> Rows:
        return {split: self._corpus(seed).rows(split) for split in SPLITS}

    def general(self, seed: int) -> list[Row]:
        return general(self.general_rows, seed)


@dataclass(frozen=True)
class Files(Conversations):
    """Files of rows (`tasks.instruction.reading`) or datasets on the hub; one, several, or a mapping of names to them.

    columns: what columns mean where their names do not say it, such as {prompt: ask, response: reply}; of all files
        that have them. on_bad_row: what becomes of a row that nothing could be learned from: drop (it is counted and
        named), or raise. deduplicate: of candidates that say the same one is kept: exact, word for word, or minhash,
        nearly (`tasks.instruction.duplicates`), or features, as the language sees them; null keeps all, and says how
        many there are.
    validation, test: null takes them from the targets, of which selection then sees the share 1 - `held_out`: a third
        of what is held out for validation, two thirds for test. held_out: 0 leaves all targets to the selection, and
        nothing to judge a model by.
    """

    candidates: Paths
    targets: Paths
    validation: Paths | None = None
    test: Paths | None = None
    held_out: Annotated[float, within("[0, 1)")] = 0.3
    columns: Mapping[str, str] | None = None
    on_bad_row: Literal["drop", "raise"] = "drop"
    deduplicate: Literal["exact", "minhash", "features"] | None = None
    _pool: list[list[Row]] = field(default_factory=list, init=False, repr=False, compare=False)  # one, once it is read
    _accounts: Accounts = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self, "task")
        if self.columns is not None:
            columns_of(self.columns)

    @property
    def by_features(self) -> bool:
        return self.deduplicate == "features"

    @property
    def accounts(self) -> Accounts:
        return self._accounts

    def candidates_of(self, seed: int) -> list[Row]:
        if not self._pool:
            rows = self._read("candidates", self.candidates)
            self._pool.append(distinct_rows(rows, self.deduplicate, self._accounts["candidates"]))
        return self._pool[0]

    def _read(self, split: Split, places: Paths) -> list[Row]:
        account = self._accounts[split] = Account()
        try:
            return read_rows(places, columns=self.columns, on_bad_row=self.on_bad_row, account=account)
        except InputError as error:
            raise InputError(f"task.{split}: {error}") from error

    def rows(self, seed: int, fits: Fits) -> Rows:
        given = {split: getattr(self, split) for split in SPLITS}
        rows: Rows = {"candidates": self.candidates_of(seed)}
        rows |= {
            split: self._read(split, paths) for split, paths in given.items() if paths is not None and split not in rows
        }
        read = len(rows["targets"])
        rows |= hold_out(rows.pop("targets"), [s for s in SPLITS if s not in rows and s != "targets"], self, seed)
        self._accounts["targets"].left_out += Counter({HELD_OUT: read - len(rows["targets"])})
        refuse_shared(rows)
        return distinct(rows)


@dataclass(frozen=True)
class Benchmark(Conversations):
    """LESS's setting: files of candidates, and MMLU or BBH.

    candidates: names of datasets and their files. folder: of the benchmark's own files (`tasks.instruction.targets`).
    targets: mmlu, 57 x 5 development questions, with val and test held out; or bbh, 27 x 3 worked examples, with
        questions held out that are drawn. shots: examples before a question that is held out, fewer where they do not
        fit. validation, test: most questions per subject.
    """

    candidates: Mapping[str, str]
    folder: str
    targets: Literal["mmlu", "bbh"]
    shots: Natural = 0
    validation: Count = 5
    test: Count = 20
    _accounts: Accounts = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_options(self, "task.data")

    @property
    def accounts(self) -> Accounts:
        return self._accounts

    def candidates_of(self, seed: int) -> list[Row]:
        account = self._accounts["candidates"] = Account()
        return read_rows(self.candidates, prefix=True, account=account)

    def rows(self, seed: int, fits: Fits) -> Rows:
        rows: Rows = {"candidates": self.candidates_of(seed)}
        if self.targets == "mmlu":
            rows["targets"] = mmlu_targets(self.folder)
            held: tuple[tuple[Split, str, int], ...] = (
                ("validation", "val", self.validation),
                ("test", "test", self.test),
            )
            for split, name, count in held:
                rows[split] = mmlu_questions(
                    self.folder, name, shots=self.shots, per_subject=count, seed=seed, fits=fits
                )
        else:
            rows["targets"] = bbh_targets(self.folder)
            drawn = bbh_questions(
                self.folder, shots=self.shots, per_task=self.validation + self.test, seed=seed, fits=fits
            )
            rows |= {"validation": [], "test": []}
            rng = np.random.default_rng(seed)
            for task in dict.fromkeys(row.group for row in drawn):
                known = [row for row in drawn if row.group == task]
                order = rng.permutation(len(known)).tolist()
                rows["validation"] += [known[i] for i in sorted(order[: self.validation])]
                rows["test"] += [known[i] for i in sorted(order[self.validation :])]
        return distinct(rows)


def hold_out(targets: list[Row], lacking: list[Split], files: Files, seed: int) -> Rows:
    """The targets, and the splits that are taken from them. What asks the same stays together, or, where all ask nearly
    the same, what says the same."""
    if not (lacking and files.held_out):
        return {"targets": targets, **{split: [] for split in lacking}}
    parts = {"validation": 1, "test": 2}

    kind = asked if len(set(map(asked, targets))) > len(targets) / 2 else said
    kinds = list(dict.fromkeys(map(kind, targets)))
    counts = {
        split: max(1, round(files.held_out * len(kinds) * parts[split] / sum(parts[s] for s in lacking)))
        for split in lacking
    }
    if sum(counts.values()) >= len(kinds):
        raise InputError(
            f"task.targets has {len(targets)} rows, too few to hold out {' and '.join(lacking)}; give more, "
            f"files of their own (task.{lacking[0]}=...), or nothing to judge by (task.held_out=0)"
        )
    order = np.random.default_rng(seed).permutation(len(kinds)).tolist()
    split_of: dict[tuple[tuple[str, str], ...], Split] = {}
    for split, count in counts.items():
        split_of |= {kinds[i]: split for i in order[:count]}
        order = order[count:]
    rows: Rows = {split: [] for split in ("targets", *counts)}
    for row in targets:
        rows[split_of.get(kind(row), "targets")].append(row)
    held = " and ".join(f"{len(rows[split])} for {split}" for split in lacking)
    log.info("%d of %d targets select; held out are %s", len(rows["targets"]), len(targets), held)
    return rows


def distinct_rows(rows: list[Row], how: str | None, account: Account) -> list[Row]:
    """The rows, or one of each that say the same; how many there are is said in any case, and account is told. What
    looks the same is for whoever has a model."""
    if how == "features":
        return rows
    exact, near = same(rows), nearly_same(rows)
    if how is None:
        say(rows, exact, near)
        account.alike = {"exact": copies(exact), "minhash": copies(near)}
        return rows
    kept = one_of_each(rows, exact if how == "exact" else near)
    log.info("%d of %d candidates say what another says (%s) and are left out", len(rows) - len(kept), len(rows), how)
    account.left_out += Counter({f"{ALIKE} ({how})": len(rows) - len(kept)})
    return kept


def refuse_shared(rows: Rows) -> None:
    """Raises InputError where targets, validation and test share what is said; warns where a candidate is held out."""
    held = {split: set(map(said, rows[split])) for split in ("validation", "test")}
    pairs: tuple[tuple[Split, Split], ...] = (("targets", "validation"), ("targets", "test"), ("validation", "test"))
    for split, other in pairs:
        shared = [row for row in rows[split] if said(row) in held[other]]
        if shared:
            first = shared[0].where or shared[0].id
            raise InputError(
                f"{len(shared)} rows of task.{split} are in task.{other}, too, such as {first}; what is held out must "
                "be seen by nothing else"
            )
    for name, seen in held.items():
        known = sum(said(row) in seen for row in rows["candidates"])
        if known:
            log.warning("warning: %d candidates are in task.%s, too, word for word", known, name)


def said(row: Row) -> tuple[tuple[str, str], ...]:
    """A conversation without what no template would keep: blanks around a message, and which kind of row it was. What a
    message calls or thinks is said, too."""
    roles = {"prompt": "user", "completion": "assistant"}
    besides = {place: json.dumps(more, sort_keys=True, default=str) for place, more in row.more.items()}
    return tuple(
        (roles.get(role, role), content.strip() + besides.get(place, ""))
        for place, (role, content) in enumerate(row.messages)
    )


def asked(row: Row) -> tuple[tuple[str, str], ...]:
    """What comes before a conversation's last answer; all of it where that is nothing."""
    spoken = said(row)
    last = max(place for place, (role, _) in enumerate(spoken) if role == "assistant")
    return spoken[:last] or spoken


def distinct(rows: Rows) -> Rows:
    """The same, the split before an id where splits have ids in common."""
    ids = [row.id for split in SPLITS for row in rows[split]]
    if len(set(ids)) == len(ids):
        return {split: rows[split] for split in SPLITS}
    for split in SPLITS:
        check_ids(rows[split])
    return {split: [replace(row, id=f"{split}/{row.id}") for row in rows[split]] for split in SPLITS}


def digest(rows: list[Row]) -> str:
    """Of all that a model could read of them, and of their names."""
    known: list[list[Any]] = []
    for row in rows:
        turns = [list(turn) for turn in row.messages]
        known.append([row.id, turns, row.group, row.prefill, row.open, list(row.options), row.answer])
        if row.masked or row.more or row.tools:
            besides = [sorted(row.masked), sorted(row.more.items()), row.tools]
            known[-1].append(json.dumps(besides, sort_keys=True, default=str))
    return fingerprint({"rows": known})
