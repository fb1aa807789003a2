"""What a selection method is: facts that stand in its class, and what it does with a problem.

Whoever asks about a method asks these facts: what a class is called decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tarot.common import InputError
from tarot.selection import Selection, SelectionProblem
from tarot.space import WHITENINGS, Whitening


@runtime_checkable
class Selector(Protocol):
    """A method: a frozen dataclass of its options, with these facts in its class.

    features: the feature recipe it wants ("wfd", "less", ...); None: it does not look at features, and any will do.
    whitening: what `whitening="auto"` is for it: one of `tarot.space.WHITENINGS`, such as "chosen" or None (rows as
    they are).
    reference: it is there to be compared with, and has neither a budget to choose nor a choice to make (`all`,
    `target_only`, `oracle`).

    A method that looks at features never selects a candidate whose features are zero: it has nothing to go by there.
    """

    features: ClassVar[str | None]
    whitening: ClassVar[Whitening]
    reference: ClassVar[bool]

    def select(self, problem: SelectionProblem) -> Selection: ...


@runtime_checkable
class Valuing(Protocol):
    """A selector that can also say what every candidate is worth: float64 [N], HIGHER = more valuable."""

    def values(self, problem: SelectionProblem) -> NDArray[np.float64]: ...


@runtime_checkable
class Needing(Protocol):
    """A selector that cannot choose by features alone. needs: the arguments of `tarot.select` without which it refuses,
    such as "candidate_labels", so that experiments can say what a task lacks before any feature is computed."""

    needs: ClassVar[tuple[str, ...]]


def needs_of(selector: Selector | type[Selector]) -> tuple[str, ...]:
    """The arguments of `tarot.select`, beside candidates and targets, that a selector or a class of them needs."""
    return selector.needs if isinstance(selector, Needing) else ()


def check_selector(selector: object) -> None:
    """Raises InputError unless `selector`, an object or a class, declares the facts of a `Selector`, naming those that
    are missing or cannot be."""
    name = (selector if isinstance(selector, type) else type(selector)).__name__
    allowed: dict[str, tuple[str, Callable[[object], bool]]] = {
        "features": ("a recipe's name or None", lambda fact: fact is None or isinstance(fact, str)),
        "whitening": (f"one of {WHITENINGS}", lambda fact: fact in WHITENINGS),
        "reference": ("True or False", lambda fact: isinstance(fact, bool)),
    }
    missing = [fact for fact in allowed if not hasattr(selector, fact)]
    if missing:
        raise InputError(
            f"the selector {name} declares no {' and no '.join(missing)}: give its class "
            + " and ".join(f"{fact} = {allowed[fact][0]}" for fact in missing)
        )
    for fact, (what, holds) in allowed.items():
        if not holds(getattr(selector, fact)):
            raise InputError(f"the selector {name} must declare {fact} = {what}; it is {getattr(selector, fact)!r}")
