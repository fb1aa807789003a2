"""Corrupted candidates: what each corruption changes, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tarot import InputError
from tasks.classification import Corrupted
from tasks.classification.images import ImageSet
from tasks.classification.poison import UNITS, collide
from tests.tasks.test_contract import small_task

SIZES = {"candidates": 300, "targets": 40, "validation": 20, "test": 60}
KINDS = ("noisy_labels", "noisy_features", "backdoor", "poison_frogs")


def pool(n: int, name: str, side: int = 32, channels: int = 3) -> ImageSet:
    rng = np.random.default_rng(len(name))
    images = rng.integers(100, 156, size=(n, channels, side, side)).astype(np.uint8)  # noise is hardly ever clipped
    ids = np.array([f"{name}-{i}" for i in range(n)])
    return ImageSet(images, np.arange(n) % 10, ids, np.full(n, ""), (0.5,) * channels, (0.25,) * channels)


def numbers(images: ImageSet) -> np.ndarray:
    """Where in their pool they are."""
    return np.array([int(name.split("-")[1]) for name in images.ids])


def craft(clean: ImageSet, bases: ImageSet, victim: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Stands in for the real one: every second poison succeeds, and is white."""
    assert set(bases.labels) == {6} and victim.labels.tolist() == [3] and set(clean.tags) == {"target"}
    return np.full_like(bases.images, 255), np.arange(len(bases)) % 2 == 0


def splits(seed: int = 0, **options):
    return Corrupted(**{**SIZES, **options}).splits(pool(500, "train"), pool(100, "test"), seed=seed, craft=craft)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_changes_what_it_names_and_nothing_else(kind):
    made, train = splits(kind=kind), pool(500, "train")
    assert {name: len(images) for name, images in made.items()} == SIZES
    ids = np.concatenate([images.ids for images in made.values()])
    assert len(np.unique(ids)) == len(ids)
    for name in ("targets", "validation"):
        assert np.array_equal(made[name].images, train.images[numbers(made[name])])
    candidates = made["candidates"]
    before = train.take(numbers(candidates))
    bad = candidates.tags == kind
    assert set(candidates.tags) == {"target", kind}
    moved = (candidates.images != before.images).any(axis=(1, 2, 3))
    renamed = candidates.labels != before.labels
    assert moved.tolist() == (bad & (kind != "noisy_labels")).tolist()
    assert renamed.tolist() == (bad & (kind in ("noisy_labels", "backdoor"))).tolist()


@pytest.mark.parametrize(("kind", "count"), [("noisy_labels", 90), ("noisy_features", 90), ("backdoor", 30)])
def test_fractions_are_of_the_candidates(kind, count):
    assert (splits(kind=kind)["candidates"].tags == kind).sum() == count
    assert (splits(kind=kind, fraction=0.05)["candidates"].tags == kind).sum() == 15
    assert set(splits(kind=kind, fraction=0)["candidates"].tags) == {"target"}


def test_every_kind_spoils_the_same_images_of_the_same_seed():
    made = {kind: splits(kind=kind) for kind in KINDS}
    for name in SIZES:
        assert len({tuple(each[name].ids) for each in made.values()}) == 1
    assert splits(seed=1)["candidates"].ids.tolist() != made["noisy_labels"]["candidates"].ids.tolist()
    again = splits(kind="noisy_features")["candidates"]
    assert np.array_equal(again.images, made["noisy_features"]["candidates"].images)


def test_wrong_labels_are_uniform_over_the_other_classes():
    train = pool(6000, "train", side=2)
    domain = Corrupted(candidates=5000, targets=40, validation=20, test=60, fraction=1.0)
    candidates = domain.splits(train, pool(100, "test", side=2), seed=0, craft=craft)["candidates"]
    right = numbers(candidates) % 10
    step = np.bincount((candidates.labels - right) % 10, minlength=10)
    assert step[0] == 0 and (abs(step[1:] - 5000 / 9) < 5 * np.sqrt(5000 / 9)).all()


def test_noise_has_its_standard_deviation():
    candidates, train = splits(kind="noisy_features")["candidates"], pool(500, "train")
    noisy = candidates.take(np.flatnonzero(candidates.tags != "target"))
    clean = train.images[numbers(noisy)]
    difference = (noisy.images.astype(float) - clean) / 255
    assert abs(difference.mean()) < 2e-3 and difference.std() == pytest.approx(0.1**0.7, rel=0.02)


@pytest.mark.parametrize("patch", ["noise", "additive"])
def test_the_backdoor_is_a_square_and_a_label(patch):
    candidates, train = splits(kind="backdoor", patch=patch)["candidates"], pool(500, "train")
    bad = candidates.take(np.flatnonzero(candidates.tags == "backdoor"))
    source = numbers(bad)
    assert set(bad.labels) == {0} and 0 not in source % 10
    change = bad.images.astype(int) - train.images[source]
    inside = np.zeros((32, 32), dtype=bool)
    inside[18:28, 18:28] = True
    assert not change[:, :, ~inside].any()
    same = (change[1:] == change[:1])[:, :, inside].mean()
    assert same < 0.1 if patch == "noise" else set(np.abs(change[:, :, inside]).ravel()) <= set(range(99, 129))


def test_the_patch_covers_as_much_of_small_images():
    domain = Corrupted(candidates=50, targets=10, validation=10, test=10, kind="backdoor", patch="additive")
    train = pool(100, "train", side=8, channels=1)
    candidates = domain.splits(train, pool(50, "test", side=8, channels=1), seed=0, craft=craft)["candidates"]
    bad = candidates.take(np.flatnonzero(candidates.tags == "backdoor"))
    change = bad.images.astype(int) - train.images[numbers(bad)]
    assert sorted(set(np.argwhere(change)[:, 2])) == sorted(set(np.argwhere(change)[:, 3])) == [4, 5, 6]


def test_poisons_that_fail_are_clean_images_and_are_not_tagged():
    made = splits(kind="poison_frogs", fraction=0.05)["candidates"]
    white = (made.images == 255).all(axis=(1, 2, 3))
    assert white.sum() == 8 and np.array_equal(white, made.tags == "poison_frogs") and set(made.labels[white]) == {6}


def test_more_frogs_than_there_are_is_said():
    with pytest.warns(UserWarning, match="150 of 300 candidates were to be corrupted, but only"):
        candidates = splits(kind="poison_frogs", fraction=0.5)["candidates"]
    frogs = (candidates.labels == 6).sum()
    assert (candidates.tags != "target").sum() == (frogs + 1) // 2


def test_the_victim_is_of_no_split():
    seen = []

    def look(clean, bases, victim):
        seen.append(victim.ids[0])
        return craft(clean, bases, victim)

    domain = Corrupted(**{**SIZES, "test": 99}, kind="poison_frogs")
    made = domain.splits(pool(500, "train"), pool(100, "test"), seed=0, craft=look)
    assert seen[0] not in made["test"].ids and seen[0].startswith("test") and int(seen[0].split("-")[1]) % 10 == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fog"}, "kind must be noisy_labels, "),
        ({"patch": "star"}, "noise or additive"),
        ({"fraction": 1.5}, r"fraction must be in \[0, 1\] or null"),
        ({"noise": -1.0}, "at least 0"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"victim_class": 6}, "both 6"),
    ],
)
def test_corruptions_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        Corrupted(**SIZES, **options)


# --- poison frogs ----------------------------------------------------------------------------------------------------


def smooth_encoder():
    weights = torch.randn(192, 32, generator=torch.Generator().manual_seed(0)) / 192**0.5
    return lambda images: torch.tanh((images - 0.5).flatten(1) @ weights)


def test_a_collision_looks_like_its_base_and_is_seen_as_the_victim():
    """The encoder's distances, taken of the image as it is stored, are what the verdict is about."""
    encode = smooth_encoder()
    bases = torch.randint(0, 256, (30, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    victim = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(2)).byte()
    poisons, collided = collide(encode, bases, victim)

    def apart(images) -> np.ndarray:
        return (encode(torch.as_tensor(images) / 255) - encode(victim[None] / 255)).norm(dim=1).numpy()

    unit = np.sort(apart(bases))[(len(bases) - 1) // 2] / UNITS
    assert poisons.dtype == np.uint8 and poisons.shape == tuple(bases.shape)
    assert np.array_equal(collided, apart(poisons) / unit < 3.5) and collided.mean() > 0.9
    to_base = np.linalg.norm((poisons / 255.0 - bases.numpy() / 255.0).reshape(30, -1), axis=1)
    to_victim = np.linalg.norm((poisons / 255.0 - victim.numpy() / 255.0).reshape(30, -1), axis=1)
    assert (to_base < to_victim / 2).all()
    assert not collide(encode, bases, victim, reach=0.01, steps=2)[1].any()
    assert np.array_equal(
        collide(encode, bases[:5], victim, steps=3)[0], collide(encode, bases[:5], victim, steps=3)[0]
    )


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_collisions_do_not_depend_on_the_scale_of_the_encoder(scale):
    encode = smooth_encoder()
    bases = torch.randint(0, 256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    victim = torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(2)).byte()
    one, two = (collide(lambda images, factor=factor: factor * encode(images), bases, victim) for factor in (1, scale))
    assert np.array_equal(one[1], two[1]) and np.abs(one[0].astype(int) - two[0]).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_made_of_its_corruption(kind, tmp_path):
    def build(*overrides):
        return small_task("digits", tmp_path, "domain=corrupted", f"corrupted.kind={kind}", *overrides)

    task, again = build("train.steps=60"), build("train.steps=60")
    assert {"target", kind} == set(task.candidate_tags())
    assert np.array_equal(task.candidates().images, again.candidates().images)
    assert task.recipe()["data"]["fraction"] == {"n": 0.3, "b": 0.1, "p": 0.1}[kind[0]]
    assert task.recipe()["data"] != build("train.steps=60", "corrupted.fraction=0.05").recipe()["data"]
    other_training = build("train.steps=61").recipe()["data"] != task.recipe()["data"]
    assert other_training == (kind == "poison_frogs"), "the encoder's training makes its images"
    if kind == "poison_frogs":
        assert len(list((tmp_path / "poisons").glob("*.npz"))) == 1
        assert set(task.labels()[task.candidate_tags() == kind]) == {6}
        cached = next((tmp_path / "poisons").glob("*.npz"))
        cached.write_bytes(b"no archive")
        assert np.array_equal(build("train.steps=60").candidates().images, task.candidates().images)  # made again


def test_convolutional_networks_are_poisoned_too(tmp_path):
    changes = ("domain=corrupted", "corrupted.kind=poison_frogs", "corrupted.steps=4", "corrupted.reach=9")
    task = small_task("cifar10", tmp_path, *changes)
    clean = {name: i for i, name in enumerate(task.pools()[0].ids)}
    bad = task.candidates().take(np.flatnonzero(task.candidate_tags() == "poison_frogs"))
    before = task.pools()[0].images[[clean[name] for name in bad.ids]]
    assert 0 < len(bad) <= 10 and set(bad.labels) == {6}
    change = np.abs(bad.images.astype(int) - before)
    assert change.any(axis=(1, 2, 3)).all() and change.mean() < 25


def test_error_norms_and_embeddings_of_a_classifier(tmp_path):
    task = small_task("digits", tmp_path)
    images, labels = task.targets().batch(slice(0, 5))
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        probabilities = model(images).softmax(1).double().numpy()
    expected = np.linalg.norm(probabilities - np.eye(10)[labels.numpy()], axis=1)
    np.testing.assert_allclose(task.error_norms(model, (images, labels)).detach(), expected, rtol=1e-5)
    assert torch.equal(task.embeddings(model, (images, labels)), images.flatten(1))
