"""Maps in this process. The same rules hold on Ray, in tests/tarot/workers/test_ray.py."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
import torch

from tarot import InputError
from tarot.workers import LOCAL, Local, Threads, Workers
from tarot.workers.given_up import stop_where_given_up
from tarot.workers.in_order import Outcome, in_order
from tarot.workers.sums import pairwise, ranges

ENGINES = [LOCAL, Threads(2), Threads(3)]


def scaled(item, state, factor):
    time.sleep(0.002 * (item % 3))  # so that later ones end first
    state.append(item)
    return item * factor


def refuses(item, state):
    time.sleep(0.02 if item == 3 else 0)
    if item in (3, 4):
        raise InputError(f"item {item} is bad")
    return item


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_results_come_in_the_order_of_items(engine):
    assert isinstance(engine, Workers)
    states: list[list[int]] = []

    def setup(factor):
        states.append([])
        return states[-1]

    assert list(engine.map(scaled, iter(range(20)), 7, setup=setup)) == [7 * item for item in range(20)]
    assert len(states) <= engine.workers, "a state once for each worker"
    assert sorted(item for state in states for item in state) == [*range(20)]
    assert list(engine.map(refuses, [])) == []


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_the_error_of_the_first_item_is_raised_with_its_type(engine):
    got = []
    with pytest.raises(InputError, match="item 3 is bad"):
        got.extend(engine.map(refuses, range(10)))
    results = engine.map(refuses, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2], "what came before it is handed on"


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_a_setup_that_fails_is_an_error_of_the_first_item(engine):
    def setup():
        raise InputError("no model")

    with pytest.raises(InputError, match="no model"):
        list(engine.map(refuses, range(3), setup=setup))


def test_threads_work_at_the_same_time_and_share_out_those_of_torch():
    meeting = threading.Barrier(2, timeout=20)

    def meets(item, state):
        meeting.wait()
        return torch.get_num_threads()

    torch.set_num_threads(4)
    try:
        assert list(Threads(2).map(meets, range(4))) == [2] * 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)


def test_a_map_within_a_map_stays_in_its_thread():
    def inner(item, state):
        return threading.current_thread().name

    def outer(item, state, engine):
        return {threading.current_thread().name, *engine.map(inner, range(3))}

    engine = Threads(2)
    assert all(len(names) == 1 for names in engine.map(outer, range(4), engine))


def test_work_that_nobody_waits_for_stops():
    stopped = threading.Event()

    def endless(item, state):
        if item == 0:
            raise InputError("the first")
        try:
            while True:
                stop_where_given_up()
                time.sleep(0.001)
        finally:
            stopped.set()

    with pytest.raises(InputError, match="the first"):
        list(Threads(2).map(endless, range(2)))
    assert stopped.wait(10)
    stop_where_given_up()  # here nothing was given up


@pytest.mark.parametrize("seed", range(5))
def test_whoever_ends_first(seed):
    """Not more than so many are under way, and none after one has failed."""
    rng = random.Random(seed)
    under_way: list[int] = []
    most = 0
    bad = rng.choice([None, 11])

    def submit(place, item):
        nonlocal most
        under_way.append(place)
        most = max(most, len(under_way))

    def collect():
        place = under_way.pop(rng.randrange(len(under_way)))
        return Outcome(place, error=ValueError("bad")) if place == bad else Outcome(place, str(place))

    results = in_order(range(30), submit, collect, 5)
    if bad is None:
        assert list(results) == [str(place) for place in range(30)]
    else:
        with pytest.raises(ValueError):
            list(results)
        assert max(under_way, default=0) < bad + 5
    assert most <= 5


def test_ranges_cover_all_and_do_not_overlap():
    assert ranges(10, 4) == [(0, 4), (4, 8), (8, 10)] and ranges(0, 4) == []


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 100])
def test_pairwise_sums_are_sums_of_one_shape(n):
    """The shape: the largest power of two below n to the left, the rest to the right, and so within them."""

    def shape(start, stop):
        if stop - start == 1:
            return start
        left = 1 << ((stop - start - 1).bit_length() - 1)
        return shape(start, start + left), shape(start + left, stop)

    assert pairwise(lambda a, b: (a, b), range(n)) == shape(0, n)
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)).tolist()
    assert pairwise(lambda a, b: a + b, values) == pytest.approx(sum(values), abs=1e-5)


def test_options_are_checked():
    with pytest.raises(InputError, match=r"engine.workers must be at least 1 or null; it is 0"):
        Threads(0)
    assert Local() == LOCAL and LOCAL.shares(Path("anywhere")) is None
