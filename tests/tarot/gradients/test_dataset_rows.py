"""Rows of a dataset: batching changes nothing, bad samples are named, memory sets the batch size."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tarot.common.errors import InputError
from tarot.common.memory import memory_limit
from tarot.gradients.dataset_rows import LARGEST_BATCH, auto_batch_size, batches_by_cost, gradient_rows
from tarot.gradients.per_sample import GradientFeatures
from tarot.gradients.projection import Projection
from tarot.gradients.reference import loop_gradients


def losses(model, batch):
    x, y = batch
    return functional.cross_entropy(model(x), y, reduction="none")


@pytest.fixture
def gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    return GradientFeatures(model, losses, Projection("identity"))


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, generator=generator), i % 3) for i in range(20)]


def test_rows_equal_the_loop_in_the_order_of_the_indices(gradients, dataset):
    indices = [7, 3, 19, 3, 0]
    batch = torch.stack([dataset[i][0] for i in indices]), torch.tensor([dataset[i][1] for i in indices])
    expected = torch.cat([rows.flatten(1) for rows in loop_gradients(gradients.model, losses, batch).values()], 1)
    for batch_size in 1, 2, 5, 64, "auto":
        result = gradient_rows(gradients, dataset, indices, batch_size=batch_size)
        assert result.keys() == {"features"}
        torch.testing.assert_close(result["features"], expected, rtol=1e-4, atol=1e-6)


def test_extras_are_columns_in_eval_mode(gradients, dataset):
    gradients.model.train()
    result = gradient_rows(gradients, dataset, range(20), batch_size=6, extras={"loss": losses})
    assert gradients.model.training
    gradients.model.eval()
    x, y = torch.stack([x for x, _ in dataset]), torch.tensor([y for _, y in dataset])
    torch.testing.assert_close(result["loss"], losses(gradients.model, (x, y)).detach())
    assert not result["loss"].requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_named_or_dropped(gradients, dataset, bad):
    clean = gradient_rows(gradients, dataset, range(20), batch_size=4)["features"]
    dataset[13] = (torch.full((6,), bad), 0)
    with pytest.raises(InputError, match="sample 13 is not finite"):
        gradient_rows(gradients, dataset, range(10, 20), batch_size=4)
    with pytest.raises(InputError, match="sample 13 is not finite"):
        gradient_rows(gradients, dataset, [13, 14, 15])  # the first sample of all
    with pytest.raises(InputError, match="sample 'img-13' is not finite"):
        gradient_rows(gradients, dataset, range(20), batch_size=4, ids=[f"img-{i}" for i in range(20)])
    result = gradient_rows(gradients, dataset, range(20), batch_size=4, extras={"loss": losses}, on_nonfinite="drop")
    assert result["dropped"].nonzero().flatten().tolist() == [13]
    assert not result["features"][13].any() and result["loss"][13] == 0
    kept = [i for i in range(20) if i != 13]
    torch.testing.assert_close(result["features"][kept], clean[kept], rtol=1e-5, atol=1e-7)


def test_an_extra_that_is_not_finite_counts(gradients, dataset):
    with pytest.raises(InputError, match="sample 0 is not finite"):
        gradient_rows(
            gradients, dataset, range(3), extras={"x": lambda model, batch: losses(model, batch).log() * torch.inf}
        )


def test_batches_by_cost_keep_to_the_budget():
    costs = [5, 1, 9, 2, 2, 7, 1, 10, 3]
    batches = list(batches_by_cost(costs, 20))
    assert sorted(i for batch in batches for i in batch) == list(range(9))
    assert all(len(batch) * max(costs[i] for i in batch) <= 20 for batch in batches)
    assert [[costs[i] for i in batch] for batch in batches] == [[1, 1, 2, 2, 3], [5, 7], [9, 10]]
    assert list(batches_by_cost([1.0] * 7, 3.0)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches_by_cost([100], 1)) == [[0]]


def test_cost_sorts_and_pads_but_rows_keep_their_order(dataset):
    torch.manual_seed(0)
    sequences = [torch.randint(1, 9, (length,)) for length in (3, 9, 2, 7, 7, 1, 4)]
    seen = []

    def collate(samples):
        seen.append([len(sample) for sample in samples])
        return nn.utils.rnn.pad_sequence(samples, batch_first=True)

    model = nn.Sequential(nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 2))
    features = GradientFeatures(
        model, lambda m, x: (m(x).square().sum(-1) * (x != 0)).sum(1), Projection("factored", 20)
    )
    options = {"collate": collate, "cost": len}
    rows = gradient_rows(features, sequences, range(7), batch_size=2, **options)["features"]
    assert all(len(lengths) * max(lengths) <= 2 * 9 for lengths in seen)
    assert [length for lengths in seen for length in lengths] == sorted(map(len, sequences))
    alone = [gradient_rows(features, sequences, [i], batch_size=1, **options)["features"] for i in range(7)]
    torch.testing.assert_close(rows, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_batch_size_follows_memory(gradients):
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 256, 3))
    features = GradientFeatures(model, losses, Projection("factored", 64))
    batch = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    sizes = [auto_batch_size(features, batch, memory=memory) for memory in (1, 1 << 20, 1 << 22, 1 << 23, 1 << 40)]
    assert sizes[0] == 1 and sizes[-1] == LARGEST_BATCH and sizes == sorted(sizes) and sizes[2] == sizes[3] // 2
    assert auto_batch_size(features, batch, memory=1 << 22) == sizes[2]
    assert all(size & (size - 1) == 0 for size in sizes)


def test_weights_count_in_the_budget_of_a_gpu(monkeypatch):
    class OnGPU(GradientFeatures):
        device = torch.device("cuda")

    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    model.register_parameter("tied", model[0].weight)
    features = OnGPU.__new__(OnGPU)
    vars(features).update(vars(GradientFeatures(model, lambda m, x: m(x).sum(1), Projection("factored", 8))))
    weights = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    batch, memory = torch.randn(2, 64), 1 << 19
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory))
    expected = auto_batch_size(features, batch, memory=(memory - weights) // 2)
    assert auto_batch_size(features, batch) == expected
    memory = 2 * weights
    assert auto_batch_size(features, batch) < expected


def test_workers_say_what_samples_cost(gradients, dataset):
    def away(sample):
        assert torch.utils.data.get_worker_info() is not None
        return 1.0 + sample[1]

    alone = gradient_rows(gradients, dataset, range(9), batch_size=3, cost=lambda sample: 1.0 + sample[1])
    helped = gradient_rows(gradients, dataset, range(9), batch_size=3, cost=away, workers=1)
    assert torch.equal(alone["features"], helped["features"])
    with pytest.raises(InputError, match=r"^img-7\.png cannot be read$"):
        gradient_rows(gradients, Unreadable(dataset), range(9), batch_size=3, cost=away, workers=1)


def test_workers_change_no_row(gradients, dataset):
    state = torch.random.get_rng_state()
    alone, helped = (
        gradient_rows(gradients, dataset, [5, 2, 11, 7], batch_size=3, workers=workers)["features"]
        for workers in (0, 2)
    )
    assert torch.equal(alone, helped)
    assert torch.equal(torch.random.get_rng_state(), state)


class Unreadable(list):
    def __getitem__(self, index):
        if index == 7:
            raise InputError("img-7.png cannot be read")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_a_sample_that_cannot_be_read_is_said_in_one_line(gradients, dataset, workers, batch_size):
    for indices in range(20), [7, 8]:
        with pytest.raises(InputError) as caught:
            gradient_rows(gradients, Unreadable(dataset), indices, batch_size=batch_size, workers=workers)
        assert str(caught.value) == "img-7.png cannot be read"


def test_a_batch_beyond_gpu_memory_is_halved(dataset):
    torch.manual_seed(0)
    model, sizes = nn.Linear(6, 3), []

    def fits_two(model, batch):
        sizes.append(len(batch[0]))
        if len(batch[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(model, batch)

    expected = gradient_rows(GradientFeatures(model, losses, Projection("identity")), dataset, range(20))
    small = GradientFeatures(model, fits_two, Projection("identity"), preflight=False)
    rows = gradient_rows(small, dataset, range(20), batch_size=7, extras={"loss": losses})
    torch.testing.assert_close(rows["features"], expected["features"])
    assert sizes == [7, 3, 1, 2, 2, 2, 1, 2, 2, 2, 1, 2, 1, 2]  # 7 and 3 are tried once, 4 and 6 not at all
    assert rows["loss"].shape == (20,)

    def never(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        gradient_rows(GradientFeatures(model, never, Projection("identity")), dataset, range(4))


def test_memory_limit_knows_containers(tmp_path):
    machine = memory_limit(tmp_path)
    assert machine > 1 << 28
    for file, text, expected in (
        ("memory.max", "max\n", machine),
        ("memory.max", "1048576\n", 1 << 20),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", 1 << 20),
        ("memory/memory.limit_in_bytes", "524288\n", 1 << 19),
    ):
        path = tmp_path / "sys/fs/cgroup" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        assert memory_limit(tmp_path) == expected


def test_no_rows(gradients, dataset):
    result = gradient_rows(gradients, dataset, [], extras={"loss": losses})
    assert result["features"].shape == (0, gradients.dim) and result["loss"].shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "positive integer or 'auto'"), ({"on_nonfinite": "ignore"}, "'raise' or 'drop'")],
)
def test_errors(gradients, dataset, options, message):
    with pytest.raises(InputError, match=message):
        gradient_rows(gradients, dataset, range(3), **options)
