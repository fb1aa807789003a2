"""The engine on a device: on one that is pretended, whose results must be the CPU's, and (`-m gpu`) on a real one."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import tarot
from tarot.common.errors import InputError
from tarot.features import read_block, read_rows
from tarot.selectors import TarotExact, TarotFixed, TarotOTM
from tarot.space import nearest_unit, unit_norm
from tarot.space.neighbours import Screen, tf32_screen
from tarot.transport import StreamedCost, costs, entropic_potentials, sinkhorn
from tarot.transport.capacity import solve_capacity
from tarot.workers import LOCAL
from tests.tarot.pretended_device import DEVICE, PretendedDevice

GPU = torch.device("cuda")


def mixture(n, m, d=24, seed=0):
    """Candidates around twenty centres, targets around five of them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(20, d))
    sides = (generator.integers(kinds, size=k) for kinds, k in ((20, n), (5, m)))
    rows = [centres[which] + 0.7 * generator.normal(size=(len(which), d)) for which in sides]
    return tuple(side.astype(np.float32) for side in rows)


def unit(n, d, seed=0):
    return unit_norm(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def pretended(monkeypatch):
    """The device; operations on tensors of two devices fail, and waits are counted."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    # threads do not see what is pretended in this one
    monkeypatch.setattr("tarot.selectors.tarot_otm.Threads", lambda workers: LOCAL)
    monkeypatch.setattr("tarot.selectors.layer_judges.PASSES", 5)  # pretending is slow
    with PretendedDevice() as device:
        yield device


# --- what is asked of a device, pretended or real ---------------------------------------------------------------------


def facts(selection):
    return (
        selection.indices,
        selection.weights,
        selection.potentials,
        selection.nearest_target,
        selection.nearest_distance,
        np.array([selection.ot_distance, selection.lower_bound]),
    )


SELECTORS = [
    TarotFixed(size=20, smoothing=2),
    TarotOTM(folds=2),
    TarotOTM(folds=2, judge="entropic"),
    TarotExact(size=13),
]
SPACES = ["chosen", "zca", "centred", None]


def agrees(one, other, tolerance):
    for mine, theirs in zip(one, other, strict=True):
        assert type(mine) is type(theirs)
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), atol=tolerance)


def whitens_alike(device, tolerance):
    c, t = mixture(80, 10, d=8)
    for whitening in SPACES:
        agrees(tarot.whiten(c, t, whitening, device=device), tarot.whiten(c, t, whitening, device="cpu"), tolerance)
    clipped = {"norm": "clip", "regularization": 0.1}
    mine, theirs = (tarot.whiten(c, t, "cholesky", **clipped, device=place) for place in (device, "cpu"))
    agrees(mine, theirs, tolerance)


def selects_alike(device, selector, tolerance):
    c, t = mixture(60, 10, d=8)
    c[7] = 0  # is nobody's neighbour there, either
    mine, theirs = (facts(tarot.select(c, t, selector, device=place)) for place in (device, "cpu"))
    for exact in (0, 1, 3):
        assert mine[exact].tolist() == theirs[exact].tolist()
    agrees(mine, theirs, tolerance)


def transports_alike(device, tolerance):
    c, t = (np.asarray(side) for side in tarot.whiten(*mixture(60, 12, d=8)))
    for epsilon in (0.0, 0.5):
        mine, theirs = (tarot.ot_distance(c, t, epsilon, device=place) for place in (device, "cpu"))
        assert mine == pytest.approx(theirs, abs=tolerance)
    mine, theirs = (tarot.potentials(c, t, 0.1, device=place) for place in (device, "cpu"))
    agrees(mine, theirs, 10 * tolerance)


# --- a device that is pretended --------------------------------------------------------------------------------------


def test_whitening_never_mixes_devices(pretended):
    whitens_alike("cuda:0", 1e-6)


@pytest.mark.parametrize("selector", [TarotExact(size=13, smoothing=2), TarotOTM(folds=2, judge="entropic")], ids=str)
def test_selections_never_mix_devices(selector, pretended):
    selects_alike("cuda:0", selector, 1e-6)


def test_transports_never_mix_devices(pretended):
    transports_alike("cuda:0", 1e-6)


def test_a_mix_of_devices_is_found():
    """The test's own instrument."""
    with PretendedDevice() as device:
        there = torch.ones(3, 2, device="cuda:0")
        assert there.device == DEVICE and there.is_cuda
        with pytest.raises(AssertionError, match="two devices"):
            there + torch.ones(3, 2)
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        assert device.waits == {}
        assert float(there.sum()) == 6 and there.cpu().numpy().sum() == 6
        assert (there > 0).nonzero().device == DEVICE
        assert device.waits == {"_local_scalar_dense": 1, "_to_copy": 1, "nonzero": 1}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16"])
def test_rows_move_in_their_own_dtype(dtype, pretended):
    """Half precision is half the bytes over the bus; float32 is made there."""
    rows = (10 * np.random.default_rng(0).random((6, 3))).astype(dtype)
    rows.flags.writeable = False  # as of a memory map
    for block in (read_block(rows, 1, 4, device=DEVICE), read_rows(rows, np.array([4, 1]), device=DEVICE)):
        assert block.dtype == torch.float32 and block.device == DEVICE
    np.testing.assert_array_equal(read_block(rows, 1, 4, device=DEVICE).cpu().numpy(), rows[1:4].astype(np.float32))
    assert {str(moved).removeprefix("torch.") for moved, _ in pretended.moved} == {dtype}


def test_what_is_not_finite_is_named_from_a_device(pretended):
    rows = np.ones((50, 3), np.float32)
    rows[40, 2] = np.nan
    with pytest.raises(InputError, match="candidates row 40 column 2 is nan"):
        tarot.nearest(rows, np.ones((2, 3), np.float32), 1, whitening=None, device="cuda:0")


def waits_per_block(monkeypatch, work):
    """How many more waits there are for another block of candidates: two blocks, and two more."""
    counted = []
    for rows in (512, 1024):  # blocks of 256
        with PretendedDevice() as device:
            work(mixture(rows, 8)[0])
            counted.append(sum(device.waits.values()))
    return (counted[1] - counted[0]) / 2


@pytest.mark.parametrize(("whitening", "most"), [("cholesky", 12), (None, 8)])
def test_a_pass_waits_for_the_device_a_few_times_a_block(whitening, most, monkeypatch):
    """Two passes over all rows, for moments and for neighbours: whether rows are finite, zero, of unit norm; and which
    pairs beat their target's threshold. The quarter blocks of the moments count as one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("tarot.space.neighbours.block_size", lambda columns: 256)
    monkeypatch.setattr("tarot.space.covariance.block_size", lambda columns: 1024)
    targets, ridge = mixture(1, 8)[1], None if whitening is None else 0.1
    per_block = waits_per_block(
        monkeypatch, lambda candidates: tarot.nearest(candidates, targets, 4, whitening, ridge, device="cuda:0")
    )
    assert 0 < per_block <= most


def test_sinkhorn_waits_once_an_iteration_and_never_a_block(monkeypatch):
    monkeypatch.setattr(costs, "GPU_PAIRS", 10 * 20)  # ten rows: five blocks
    distance = costs.distances(unit(50, 8), unit(20, 8, seed=1))
    waits = []
    for iterations in (4, 9):
        with PretendedDevice() as device:
            cost = costs.HeldCost(20, 2.0, DEVICE)
            cost.add(distance.to(DEVICE))
            sinkhorn(cost, 0.05, g=np.zeros(20), tolerance=0.0, max_iterations=iterations, strict=False)
            waits.append(sum(device.waits.values()))
    assert waits[1] - waits[0] == 5


def test_capacity_by_scaling_never_mixes_devices(pretended, monkeypatch):
    monkeypatch.setattr("tarot.transport.capacity.EXACT_ARCS", 50)
    monkeypatch.setattr("tarot.transport.capacity.ITERATIONS", 3)
    table = nearest_unit(unit(60, 8), unit(12, 8, seed=1), 60)
    plans = [solve_capacity(lambda k: table, 60, 12, 10, device=place) for place in (DEVICE, torch.device("cpu"))]
    assert plans[0].lower_bound == pytest.approx(plans[1].lower_bound, abs=1e-12)
    np.testing.assert_allclose(plans[0].mass, plans[1].mass, atol=1e-12)


# --- what is held, and what is rounded -------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_free", [0, 10**9])
def test_a_streamed_cost_is_held_where_it_fits(bytes_free, monkeypatch):
    """Then it is computed once, and potentials are the same to 16 bits."""
    monkeypatch.setattr(costs, "room_for_a_cost", lambda device: bytes_free)
    x, y = unit(60, 6), unit(17, 6, seed=1)
    computed = []
    monkeypatch.setattr(costs, "distances", lambda x, y: computed.append(len(x)) or torch.cdist(x, y))
    dense = entropic_potentials(torch.cdist(x, y))
    streamed = entropic_potentials(StreamedCost(x, y, top=2.0))
    assert len(computed) == 2 if bytes_free else len(computed) > 3, "a pass, and the rows that seed it"
    assert spearmanr(streamed.f, dense.f).statistic >= 0.999
    assert costs.held_where_it_fits(StreamedCost(x, y, top=2.0), 1e-4).__class__ is StreamedCost  # too fine for 16 bits
    assert costs.held_where_it_fits(StreamedCost(x, y), 0.01).__class__ is StreamedCost  # of unknown range


def tf32(rows):
    """Rounded to eleven bits, as tensor cores read float32."""
    return ((rows.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def screens(d):
    half_error = 2 * 2.0**-11 + 2.0**-22 + d**0.5 * 2.0**-24
    return {
        "tf32": Screen(lambda t, c: tf32(t) @ tf32(c).T, tf32_screen(d).error),
        "fp16": Screen(lambda t, c: t.half().float() @ c.half().float().T, half_error),
    }


@pytest.mark.parametrize("kind", ["tf32", "fp16"])
@pytest.mark.parametrize(
    ("n", "d", "k", "copies"), [(1000, 24, 8, 1), (100, 24, 12, 10), (300, 2048, 6, 1), (2000, 3, 5, 1)]
)
def test_neighbours_are_the_same_whatever_screens_them(kind, n, d, k, copies):
    """Bit by bit: with copies, where ties decide; in many dimensions; and so dense that certificates fail."""
    candidates, targets = unit(n, d).repeat(copies, 1), unit(20, d, seed=1)
    expected = nearest_unit(candidates, targets, k, 5000)
    found = nearest_unit(candidates, targets, k, 5000, screen=screens(d)[kind])
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_targets_that_are_not_certified_are_looked_at_again():
    """A screen that says nothing, and says so: all comes from the product in float32. One that lies would not."""
    candidates, targets = unit(2000, 8), unit(6, 8, seed=1)
    expected = nearest_unit(candidates, targets, 5, 3000)

    def blind(t, c):
        return torch.zeros(len(t), len(c)) + torch.arange(len(c)) * 1e-4

    honest = nearest_unit(candidates, targets, 5, 3000, screen=Screen(blind, 2.0))
    assert torch.equal(honest[1], expected[1])
    liar = nearest_unit(candidates, targets, 5, 3000, screen=Screen(blind, 1e-7))
    assert not torch.equal(liar[1], expected[1])


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="device 'abacus' is none that torch knows"):
        tarot.select(*mixture(10, 3), "tarot_fixed", size=2, device="abacus")
    with pytest.raises(TypeError, match="device must be a name"):
        tarot.nearest(*mixture(10, 3), 2, device=0)


# --- a real one ------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_whitening_on_a_gpu():
    whitens_alike("cuda", 2e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_selections_on_a_gpu(selector):
    selects_alike("cuda", selector, 2e-4)


@pytest.mark.gpu
def test_transports_on_a_gpu():
    transports_alike("cuda", 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "d", "k", "copies"), [(50_000, 512, 32, 1), (3000, 33, 12, 10), (20_000, 2048, 32, 1)])
def test_tensor_cores_find_the_same_neighbours(n, d, k, copies):
    candidates, targets = unit(n, d).repeat(copies, 1).to(GPU), unit(200, d, seed=1).to(GPU)
    expected = nearest_unit(candidates, targets, k)
    found = nearest_unit(candidates, targets, k, screen=tf32_screen(d))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    similarity = tf32_screen(d).product(targets, candidates)
    assert float((similarity.double() - targets.double() @ candidates.double().T).abs().max()) <= tf32_screen(d).error


@pytest.mark.gpu
def test_precision_that_was_set_elsewhere_changes_nothing():
    c, t = mixture(4000, 50, d=256)
    expected = tarot.whiten(c, t, "cholesky", device="cuda")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        agrees(tarot.whiten(c, t, "cholesky", device="cuda"), expected, 0.0)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.gpu
def test_a_cost_in_16_bits_on_a_gpu():
    x, y = unit(3000, 64), unit(400, 64, seed=1)
    on_cpu = entropic_potentials(torch.cdist(x, y))
    on_gpu = entropic_potentials(StreamedCost(x, y.to(GPU), top=2.0))
    assert spearmanr(on_cpu.f, on_gpu.f).statistic >= 0.9999
