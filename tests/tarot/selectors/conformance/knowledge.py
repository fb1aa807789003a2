"""What else it must be told, and what it may not look at."""

from __future__ import annotations

import warnings

import tarot
from tarot import InputError
from tarot.selectors import needs_of
from tests.tarot.selectors.conformance.subjects import NotPromised, Subject, assert_same, pool, usual

NEEDED = ("candidate_labels", "target_labels", "candidate_tags", "candidate_scores")  # by methods that are made of them


MEASURED = ("candidate_residuals", "learning_rates")  # what a method that knows them has in its formula
REFINING = ("target_groups", *MEASURED)  # a method that knows them may choose otherwise


def refuses_what_is_missing_by_name(subject: Subject) -> None:
    """Without something that it needs, one line that names it, and its class has said so; without what it does not
    need, the same choice."""
    known, one, declared = pool(), usual(subject), needs_of(subject.made())
    for name in NEEDED + REFINING:
        rest = {key: value for key, value in known.items() if key != name}
        try:
            other = subject.select(rest)
        except InputError as error:
            assert name in str(error) and "\n" not in str(error), f"without {name} it says {str(error)!r}"
            assert name in declared, f"it refuses without {name}, which its class does not say it needs"
        except Exception as error:
            raise AssertionError(f"without {name}: {type(error).__name__}: {error}") from error
        else:
            assert name not in declared, f"its class says that it needs {name}, and it selects without"
            if name in NEEDED:
                assert_same(one, other, f"it needs no {name}, but selects others without")


def says_what_it_does_without(subject: Subject) -> None:
    """Who chooses otherwise without a number of its formula, of every row or every model, warns of it by name."""
    known = {**pool(views=2), "learning_rates": [1e-3, 1e-1]}
    one = subject.select(known)
    if subject.select({key: value for key, value in known.items() if key not in MEASURED}).indices.tolist() == (
        one.indices.tolist()
    ):
        return  # it knows none of them
    for name in MEASURED:
        rest = {key: value for key, value in known.items() if key != name}
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            other = tarot.select(**rest, selector=subject.made())
        if other.indices.tolist() != one.indices.tolist():
            said = [str(warning.message) for warning in heard]
            assert any(name in message for message in said), f"without {name} it selects others, and says {said}"


def does_not_look_at_tags_unless_it_needs_them(subject: Subject) -> None:
    """Tags are for diagnosis: who selects by them must refuse a pool without (the check above says so by name)."""
    known = pool()
    without = {key: value for key, value in known.items() if key != "candidate_tags"}
    try:
        one = subject.select(without)
    except InputError:
        raise NotPromised("it selects by tags, and says so") from None
    assert_same(one, usual(subject), "tags change its choice")
