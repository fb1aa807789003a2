"""Losses against sums by hand, what images depend on, and the ledger of distillation."""

import numpy as np
import pytest
import torch
from torch import nn

import tarot
from tarot import InputError, Synthesis
from tarot.distillation.aims import Aim, class_moments, released, squared, sre2l
from tarot.distillation.synthesis import Pixels
from tarot.distillation.teacher import Seen, watched
from tarot.distillation.views import crop_box, shown
from tests.tarot.distillation.networks import MEAN, STD, network, normalised, pool

pytestmark = pytest.mark.filterwarnings("ignore:synthesis of .* ends at a cost")  # six steps are few
QUICK = {"iterations": 6, "statistics_weight": 3.0}


def distilled(model=None, per_class=2, data=None, seed=0, weights="uniform", **options):
    images, labels = data or pool()
    return tarot.distill(
        model or network(),
        images,
        labels,
        per_class=per_class,
        mean=MEAN,
        std=STD,
        weights=weights,
        synthesis=Synthesis(**{**QUICK, **options}),
        seed=seed,
        device="cpu",
    )


# --- losses ----------------------------------------------------------------------------------------------------------


def seen(images, model=None):
    with watched(model or network()) as see:
        return see(images)


def aim(weights, classes=2, m=2, first=4, second=6):
    g = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return torch.randn(*shape, generator=g)

    return Aim(
        drawn(classes, m, second),
        torch.tensor(weights),
        torch.arange(classes),
        {"1": drawn(classes, first), "5": drawn(classes, second)},
        {"1": drawn(classes, first).square(), "5": drawn(classes, second).square()},
    )


def test_the_squared_loss_is_the_sum_that_is_written_down():
    images = normalised(pool()[0][:4])
    weights = [[0.25, 0.75], [0.5, 0.5]]
    target, model = aim(weights), network()
    found = squared(seen(images, model), target)
    activations = {"1": model[0](images), "5": model[:5](images)}
    features, statistics = 0.0, 0.0
    for c in range(2):
        for k in range(2):
            x = model[:9](images[2 * c + k : 2 * c + k + 1])[0]
            features += (x - target.atoms[c, k]).square().sum()
        for name, given in activations.items():
            a, b = (given[2 * c + k].flatten(1) for k in range(2))
            w = weights[c]
            mean = w[0] * a.mean(1) + w[1] * b.mean(1)
            variance = w[0] * a.square().mean(1) + w[1] * b.square().mean(1) - mean.square()
            statistics += (mean - target.means[name][c]).square().sum()
            statistics += (variance - target.variances[name][c]).square().sum()
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.statistics, statistics)
    assert found.cross_entropy == 0  # D-06
    torch.testing.assert_close(found.by_class.sum(0), torch.stack([features, statistics]))


def test_equal_weights_give_the_plain_moments_of_a_class():
    images = normalised(pool()[0][:4])
    moments = class_moments(seen(images), torch.full((2, 2), 0.5))
    given = network()[0](images)[2:].transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments["1"][0][1], given.mean(1))
    torch.testing.assert_close(moments["1"][1][1], given.var(1, correction=0))


def test_D06_D07_the_released_loss_has_a_norm_of_the_batch_and_a_cross_entropy():
    atoms, features = torch.zeros(1, 2, 1), torch.tensor([[3.0], [4.0]], requires_grad=True)
    nothing = Seen(features, torch.zeros(2, 2), {}, {})
    one = Aim(atoms, torch.full((1, 2), 0.5), torch.zeros(1).long(), {}, {})
    assert squared(nothing, one).features.item() == 25
    norm = released(nothing, one).features
    assert norm.item() == 5
    norm.backward()
    assert features.grad.norm().item() == pytest.approx(1)  # whatever the batch
    assert released(nothing, one).cross_entropy.item() == pytest.approx(np.log(2))


def test_D15_the_first_layer_counts_as_often_as_is_said():
    images = normalised(pool()[0][:4])
    target = aim([[0.5, 0.5]] * 2)
    once, tenfold = (sre2l(seen(images), target, weight).statistics for weight in (1.0, 10.0))
    first_alone = tenfold - once
    given = network()[0](images).transpose(0, 1).flatten(1)
    gap = (given.mean(1) - target.means["1"][0]).norm()
    gap += (given.var(1, correction=0) - target.variances["1"][0]).norm()
    torch.testing.assert_close(first_alone, 9 * gap)


# --- what images depend on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "shift", "crop"])
def test_classes_are_independent_of_how_they_are_chunked(augment):
    together, apart = (distilled(chunk=chunk, augment=augment).images for chunk in (100, 1))
    np.testing.assert_array_equal(together, apart)


def test_a_class_does_not_depend_on_the_images_of_others():
    images, labels = pool()
    changed = images.copy()
    changed[labels == 2] = 255 - changed[labels == 2]
    one, other = distilled(init="noise"), distilled(init="noise", data=(changed, labels))
    np.testing.assert_array_equal(one.images[:4], other.images[:4])
    assert (one.images[4:] != other.images[4:]).any()


@pytest.mark.parametrize("init", ["coreset", "random", "noise"])
def test_no_step_returns_the_start_byte_for_byte(init):
    found = distilled(init=init, iterations=0)
    images, labels = pool()
    if init == "coreset":
        np.testing.assert_array_equal(found.images, images[found.coreset])
        np.testing.assert_array_equal(labels[found.coreset], found.labels)
    elif init == "random":
        alike = (found.images[:, None] == images[None]).all((2, 3, 4))
        assert alike.any(1).all() and (labels[alike.argmax(1)] == found.labels).all()
    else:
        assert 20 < found.images.std() < 120  # of a normal, on the scale of the pixels, clipped


def test_D13_the_seed_decides_everything():
    one, again, other = distilled(init="noise"), distilled(init="noise"), distilled(init="noise", seed=1)
    np.testing.assert_array_equal(one.images, again.images)
    assert (one.images != other.images).any()


def test_the_cost_falls_and_its_parts_are_told():
    found = distilled(iterations=40, init="noise")
    total = found.curve.sum(1)
    assert total[-1] < 0.2 * total[0]
    assert found.curve.shape == (40, 3) and (found.curve[:, 1] == 0).all()
    assert (distilled(loss="released").curve[:, 1] > 0).all()


def test_D16_the_last_iterate_is_kept_and_not_the_best():
    model = network()
    with pytest.warns(UserWarning, match=r"ends at a cost of .* above"):
        found = distilled(model, iterations=2, learning_rate=30.0)
    cost = squared(seen(normalised(found.images), model), aim_of(model, found))
    assert float(cost.features + 3 * cost.statistics) > 2 * found.curve[0].sum()


def aim_of(model, found):
    """What these images were made to be like."""
    images, labels = pool()
    statistics = tarot.class_statistics(model, [(normalised(images), torch.from_numpy(labels))], 3)
    return Aim(
        torch.from_numpy(found.atoms).float().view(3, 2, -1),
        torch.from_numpy(found.weights).float().view(3, 2),
        torch.arange(3),
        {name: of_layer.float() for name, of_layer in statistics.means.items()},
        {name: of_layer.float() for name, of_layer in statistics.variances.items()},
    )


def test_D11_any_number_of_images_and_chunks_that_do_not_divide_the_classes():
    found = distilled(per_class=3, chunk=7)  # two classes at once, one left
    assert found.images.shape == (9, 1, 8, 8) and np.bincount(found.labels).tolist() == [3, 3, 3]


@pytest.mark.parametrize("arm", ["wmdd", "wmdd_noise", "wmdd_released", "sre2l"])
def test_every_named_arm_runs(arm):
    options = Synthesis(**QUICK).named(arm, released_weight=0.5)
    images, labels = pool()
    found = tarot.distill(network(), images, labels, per_class=1, synthesis=options, device="cpu")
    assert found.images.dtype == np.uint8 and len(found.images) == 3
    assert options.statistics_weight == (3.0 if arm in ("wmdd", "wmdd_noise") else 0.5)


# --- views -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["shift", "crop"])
def test_a_view_is_decided_by_its_stream_and_has_a_gradient(augment):
    images = torch.randn(2, 1, 16, 16, requires_grad=True)
    views = [shown(images, augment, (0, 1, step)) for step in range(6)]
    torch.testing.assert_close(shown(images, augment, (0, 1, 3)), views[3])
    assert len({view.sum().item() for view in views}) > 1
    views[0].sum().backward()
    assert images.grad.any()


def test_crops_fit_and_have_the_area_that_is_asked_for():
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, left, height, width = crop_box(32, 48, rng, 0.25)
        assert 0 <= top <= 32 - height and 0 <= left <= 48 - width
        assert height * width >= 0.22 * 32 * 48
    assert crop_box(32, 32, rng, 1.0) == (0, 0, 32, 32)


def test_a_curriculum_begins_with_the_whole_and_ends_with_small_parts():
    options = Synthesis(curriculum=0.5, iterations=100)
    assert options.least_area(0) == 1
    assert options.least_area(25) == pytest.approx(0.54)
    assert options.least_area(50) == pytest.approx(0.08) == options.least_area(99)


def test_the_rate_falls_on_a_cosine():
    options = Synthesis(learning_rate=0.2, iterations=4)
    assert [round(options.rate(step), 6) for step in (0, 2)] == [0.2, 0.1]


# --- bytes and files -------------------------------------------------------------------------------------------------


def test_D18_pixels_are_rounded_and_not_cut_off():
    pixels = Pixels((0.0,), (1.0,))
    assert pixels.bytes_of(torch.full((1, 1, 1), 0.999)).item() == 255
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(Pixels(MEAN, STD).bytes_of(Pixels(MEAN, STD).normalised(every)), every)


def test_D10_a_chunk_is_named_by_the_teachers_bits(tmp_path):
    images, labels = pool()
    model = network()

    def made():
        tarot.distill(model, images, labels, per_class=1, synthesis=Synthesis(**QUICK), cache=tmp_path, device="cpu")
        return {file.name for file in tmp_path.iterdir()}

    first = made()
    assert made() == first and len(first) == 1
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-3
    assert len(made()) == 2


def test_a_call_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    images, labels = pool()
    model, options = network(), Synthesis(**QUICK, chunk=1)
    known = {"per_class": 1, "synthesis": options, "device": "cpu"}
    asked, die_at = [], None

    def counted(*_):
        asked.append(1)
        if len(asked) == die_at:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(counted)
    whole = tarot.distill(model, images, labels, **known)
    chunk = QUICK["iterations"]
    passes, die_at = len(asked), len(asked) - chunk + 1  # with the last of three chunks
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        tarot.distill(model, images, labels, **known, cache=tmp_path)
    die_at = None
    asked.clear()
    again = tarot.distill(model, images, labels, **known, cache=tmp_path)
    assert len(asked) == passes - 2 * chunk, "one chunk was left, and no other may be made"
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.curve, whole.curve)


def test_D19_saved_as_folders_of_pictures_with_every_weight(tmp_path):
    from PIL import Image

    images, labels = pool()
    names = ("nought", "one", "two")
    found = tarot.distill(
        network(), images, labels, per_class=2, weights="free", names=names, synthesis=Synthesis(**QUICK), device="cpu"
    )
    found.save(tmp_path / "set")
    read = [np.asarray(Image.open(tmp_path / "set" / name / f"0000{k}.png")) for name in names for k in range(2)]
    np.testing.assert_array_equal(np.stack(read)[:, None], found.images)
    lines = (tmp_path / "set" / "distilled.csv").read_text().splitlines()
    assert lines[0] == "file,class,label,weight" and lines[1].startswith("nought/00000.png,nought,0,")
    assert [float(line.rpartition(",")[2]) for line in lines[1:]] == found.weights.tolist()
    assert repr(1e-9) == "1e-09"  # how a weight below 5e-7 is written
    with pytest.raises(InputError, match="is there already"):
        found.save(tmp_path / "set")


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"statistics_weight": -1.0}, "synthesis.statistics_weight must be at least 0; it is -1"),
        ({"iterations": -1}, "synthesis.iterations must be at least 0"),
        ({"learning_rate": 0.0}, "synthesis.learning_rate must be positive"),
        ({"loss": "l1"}, "synthesis.loss must be squared, released or sre2l"),
        ({"loss": "sre2l"}, "synthesis.statistics must be global"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Synthesis(**options)


def test_input_that_cannot_be_is_named():
    images, labels = pool()
    model = network()
    few = labels.copy()
    few[few == 2] = 1
    few[0] = 2
    cases = [
        ((images, few), {"per_class": 2, "names": ["a", "b", "c"]}, "class c has 1 images, and 2 are wanted"),
        ((images, labels), {"per_class": 0}, "per_class must be at least 1"),
        ((images, labels), {"per_class": 1, "names": ["a", "b"]}, "labels must be 0 to 1; there is the label 2"),
        ((images, labels[:-1]), {"per_class": 1}, "one for each of 24 images"),
        ((images[:, 0], labels), {"per_class": 1}, r"images must be uint8 \[n, channels"),
        ((images / 255, labels), {"per_class": 1}, "images must be uint8"),
        ((images, labels), {"per_class": 1, "std": [0.0]}, "std must be 1 numbers, above 0"),
        ((images, labels), {"per_class": 1, "starts": 0}, "starts must be at least 1"),
    ]
    for given, options, message in cases:
        with pytest.raises(InputError, match=message):
            tarot.distill(model, *given, **options, device="cpu")
    with pytest.raises(InputError, match="no BatchNorm layer"):
        tarot.distill(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), images, labels, per_class=1, device="cpu")


def test_a_synthesis_that_diverges_names_the_class_and_the_weight():
    model = network()
    with torch.no_grad():
        model[0].weight *= 100
    with pytest.raises(InputError, match=r"synthesis of class 0, 1, 2 diverged.*statistics_weight=1e\+38"):
        distilled(model, statistics_weight=1e38, init="noise")


def test_a_class_of_copies_without_contrast_is_allowed():
    images, labels = pool()
    images[labels == 0] = 30  # its atoms coincide, and no layer sees a variance between images
    found = distilled(data=(images, labels), per_class=3, weights="free", iterations=3)
    assert np.isfinite(found.curve).all() and found.costs[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.weights[:3], 1 / 3)
