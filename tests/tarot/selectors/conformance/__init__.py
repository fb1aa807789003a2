"""What every selector promises, as checks that a test runs on one: nothing here knows a method by name.

A `Subject` is a selector's class and what it is given in a test. A check raises AssertionError, or what the selector
raised, where the promise is broken, and `NotPromised` where the selector makes no such promise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from tests.tarot.selectors.conformance.answers import (
    hands_over_usable_potentials,
    is_judged_by_the_transport,
    survives_a_file,
    weighs_up_to_a_total,
)
from tests.tarot.selectors.conformance.candidates import (
    differs_by_seed,
    does_not_look_at_ids,
    follows_its_candidates,
    follows_its_seed,
    never_selects_zero_rows,
    orders_equals_by_id,
    selects_valid_candidates,
)
from tests.tarot.selectors.conformance.character import (
    answers_the_problem_at_hand,
    declares_its_facts,
    describes_itself,
    keeps_no_state,
    leaves_a_shared_problem_as_it_was,
    leaves_global_state_alone,
    reaches_a_worker,
    refuses_what_no_option_may_be,
)
from tests.tarot.selectors.conformance.knowledge import (
    does_not_look_at_tags_unless_it_needs_them,
    refuses_what_is_missing_by_name,
    says_what_it_does_without,
)
from tests.tarot.selectors.conformance.rows import (
    follows_no_scale,
    is_the_same_in_every_kind_of_array,
    reads_every_precision,
    reads_rows_wherever_they_are,
    refuses_candidates_that_are_not_finite,
)
from tests.tarot.selectors.conformance.sizes import meets_its_size, refuses_impossible_budgets
from tests.tarot.selectors.conformance.subjects import NotPromised, Subject, rows_for
from tests.tarot.selectors.conformance.targets import (
    follows_no_order_of_targets,
    goes_by_the_space_that_it_names,
    looks_at_its_targets,
    serves_its_targets,
    survives_a_zero_target,
    survives_little_data,
)
from tests.tarot.selectors.conformance.values import (
    selects_the_most_valuable,
    selects_what_it_values,
    values_every_candidate,
)
from tests.tarot.selectors.conformance.views import hears_every_view, works_with_several_views

__all__ = ["CHECKS", "NotPromised", "Subject", "run"]

CHECKS: tuple[Callable[..., None], ...] = (
    declares_its_facts,
    describes_itself,
    refuses_what_no_option_may_be,
    keeps_no_state,
    answers_the_problem_at_hand,
    leaves_a_shared_problem_as_it_was,
    leaves_global_state_alone,
    reaches_a_worker,
    refuses_impossible_budgets,
    meets_its_size,
    selects_valid_candidates,
    never_selects_zero_rows,
    follows_its_candidates,
    follows_its_seed,
    differs_by_seed,
    is_the_same_in_every_kind_of_array,
    reads_every_precision,
    reads_rows_wherever_they_are,
    does_not_look_at_ids,
    orders_equals_by_id,
    follows_no_scale,
    follows_no_order_of_targets,
    goes_by_the_space_that_it_names,
    looks_at_its_targets,
    serves_its_targets,
    survives_a_zero_target,
    survives_little_data,
    refuses_candidates_that_are_not_finite,
    works_with_several_views,
    hears_every_view,
    refuses_what_is_missing_by_name,
    says_what_it_does_without,
    does_not_look_at_tags_unless_it_needs_them,
    weighs_up_to_a_total,
    hands_over_usable_potentials,
    survives_a_file,
    is_judged_by_the_transport,
    values_every_candidate,
    selects_what_it_values,
    selects_the_most_valuable,
)


def run(check: Callable[..., None], subject: Subject, folder: Path) -> None:
    """One check of one selector; folder: an empty one to write in."""
    writes = "folder" in inspect.signature(check).parameters
    with rows_for(subject):
        check(subject, folder) if writes else check(subject)
