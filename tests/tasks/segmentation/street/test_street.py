"""The rendered streets: the same everywhere, at any size, with labels that fit where they should, and only there."""

import hashlib

import numpy as np
import pytest

from tarot import InputError
from tasks.segmentation.street.canvas import Camera, Canvas, Paint, grain, mixed, scatter
from tasks.segmentation.street.domain import CANDIDATES, KINDS, SHARES, TARGETS, street_splits
from tasks.segmentation.street.objects import CLASSES, PALETTE
from tasks.segmentation.street.rendering import render

SIZE = (48, 80)
SKY = CLASSES.index("sky")


def digest(kind: str, seed: int, size: tuple[int, int] = SIZE) -> str:
    return hashlib.sha256(b"".join(part.tobytes() for part in render(kind, seed, *size))).hexdigest()


def test_same_seed_same_bytes_whatever_was_drawn_before():
    first = {kind: digest(kind, 5) for kind in KINDS}
    for kind in reversed(KINDS):
        render(kind, 9, 32, 64)
    assert {kind: digest(kind, 5) for kind in KINDS} == first
    assert len(set(first.values())) == len(KINDS)


def test_bytes_are_the_same_everywhere():
    """Found alike under NumPy 1.26 and 2.4, with vector instructions and without; a new picture asks for new ones."""
    assert {mode: digest(mode, 7, (96, 160))[:16] for mode in TARGETS} == {
        "city": "771c3fe0bbdd834e",
        "residential": "d40e41e118efbd3b",
        "tunnel": "24c5047737320922",
    }


def test_other_seeds_are_other_scenes():
    assert len({digest("city", seed) for seed in range(12)}) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_labels(kind):
    for height, width in ((32, 64), (33, 51), (64, 64)):
        image, label = render(kind, 1, height, width)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert label.shape == (height, width) and label.dtype == np.uint8
        assert label.max() < len(CLASSES)
        assert image.std() > 8  # something can be seen
    assert PALETTE.shape == (len(CLASSES), 3) and len(np.unique(PALETTE, axis=0)) == len(CLASSES)


@pytest.mark.parametrize("mode", TARGETS)
def test_every_class_occurs_in_every_mode(mode):
    labels = [render(mode, seed, 48, 80)[1] for seed in range(30)]
    seen = np.array([np.bincount(label.ravel(), minlength=len(CLASSES)) for label in labels])
    share = seen.sum(0) / seen.sum()
    assert (share > 0.004).all(), dict(zip(CLASSES, share.round(4), strict=True))
    assert share.max() < 0.6
    assert ((seen > 0).sum(0) >= 9).all(), dict(zip(CLASSES, (seen > 0).sum(0), strict=True))


@pytest.mark.parametrize("kind", [*TARGETS, "birds_eye", "tilted"])
def test_the_same_street_at_twice_the_size(kind):
    agree = []
    for seed in range(4):
        image, label = render(kind, seed, 64, 104)
        large, fine = render(kind, seed, 128, 208)
        agree.append((fine[::2, ::2] == label).mean())
        pooled = large.reshape(64, 2, 104, 2, 3).mean((1, 3))
        assert np.abs(pooled - image).mean() < 14
    assert min(agree) > 0.93


def test_a_wider_picture_shows_the_same_middle():
    narrow, wide = render("city", 3, 64, 64)[1], render("city", 3, 64, 128)[1]
    assert (wide[:, 32:96] == narrow).mean() > 0.999


@pytest.mark.parametrize("kind", ["swapped_labels", "displaced_labels"])
def test_shifted_labels_disagree_with_their_image(kind):
    wrong = []
    for seed in range(8):
        image, label = render(kind, seed, *SIZE)
        truths = [render(f"game_{mode}", seed, *SIZE) for mode in ("city", "residential", "tunnel")]
        truth = [other for picture, other in truths if np.array_equal(picture, image)]
        assert len(truth) == 1  # the picture is one of the good kinds' own
        wrong.append((truth[0] != label).mean())
        assert sorted(np.bincount(truth[0].ravel(), minlength=9)) == sorted(np.bincount(label.ravel(), minlength=9))
    assert min(wrong) > 0.3 and np.mean(wrong) > 0.45


@pytest.mark.parametrize("kind", ["inverted", "false_colours"])
def test_false_palettes_keep_their_labels(kind):
    for seed in range(4):
        image, label = render(kind, seed, *SIZE)
        truths = [render(f"game_{mode}", seed, *SIZE) for mode in ("city", "residential", "tunnel")]
        own = [picture for picture, other in truths if np.array_equal(other, label)]
        assert len(own) == 1
        assert np.abs(own[0].astype(int) - image).mean() > 20
        if kind == "inverted":
            assert np.array_equal(255 - own[0], image)


def test_close_ups_and_birds_see_no_sky():
    for kind in ("close_up", "birds_eye"):
        assert max((render(kind, seed, *SIZE)[1] == SKY).mean() for seed in range(12)) < 0.02


def test_the_pool_has_its_own_look():
    """The same streets differ in colour between the domains, and not in what stands there."""
    for mode in TARGETS:
        image, label = render(mode, 2, *SIZE)
        other, same = render(f"game_{mode}", 2, *SIZE)
        assert np.array_equal(label, same)
        assert 5 < np.abs(image.astype(int) - other).mean() < 60


def test_tags():
    assert {kind.tag for kind in TARGETS.values()} == {"target"}
    assert {name for name, kind in CANDIDATES.items() if kind.tag == "target"} == {f"game_{mode}" for mode in TARGETS}
    assert {kind.tag for kind in CANDIDATES.values()} == {
        "target",
        "viewpoint",
        "palette",
        "skyless",
        "clutter",
        "label_shift",
    }


def test_splits_are_disjoint_and_have_their_shares():
    splits = street_splits(403, 40, 30, 61, seed=3)
    assert {name: len(scenes) for name, scenes in splits.items()} == {
        "candidates": 403,
        "targets": 40,
        "validation": 30,
        "test": 61,
    }
    every = [scene for scenes in splits.values() for scene in scenes]
    assert len({scene.seed for scene in every}) == len(every) == len({scene.id for scene in every})
    assert all(scene.tag == KINDS[scene.kind].tag for scene in every)
    counts = {kind: sum(scene.kind == kind for scene in splits["candidates"]) for kind in CANDIDATES}
    assert sum(counts.values()) == 403
    assert all(abs(counts[kind] - 403 * SHARES[kind]) < 1 for kind in CANDIDATES)
    for split in ("targets", "validation", "test"):
        assert {scene.kind for scene in splits[split]} == set(TARGETS)
    assert street_splits(403, 40, 30, 61, seed=3) == splits
    elsewhere = street_splits(403, 40, 30, 61, seed=4)
    assert not {scene.seed for scenes in elsewhere.values() for scene in scenes} & {scene.seed for scene in every}


def test_kinds_are_mixed_within_a_split():
    kinds = [scene.kind for scene in street_splits(200, 0, 0, 0)["candidates"]]
    assert len(set(kinds[:40])) > 6


def test_own_shares():
    splits = street_splits(10, 1, 0, 0, shares={"game_tunnel": 0.5, "tilted": 0.5})
    assert sorted(scene.kind for scene in splits["candidates"]) == ["game_tunnel"] * 5 + ["tilted"] * 5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: render("moon", 0, 64, 64), "no kind of scene is called 'moon'"),
        (lambda: render("city", -1, 64, 64), "at least 0; it is -1"),
        (lambda: render("city", 0, 8, 64), "not at 8 x 64"),
        (lambda: street_splits(5, 1, 1, 1, shares={"city": 1.0}), "kinds that the pool does not have"),
        (lambda: street_splits(5, 1, 1, 1, shares={"tilted": 0.7}), "add up to 1"),
        (lambda: street_splits(5, 1, 1, 1, shares={}), "add up to 1"),
        (lambda: street_splits(-5, 1, 1, 1), "at least 0"),
        (lambda: street_splits(5, 1, 1, 1, seed=-1), "seed"),
        (lambda: street_splits(5, 1, 1, 1, height=4), "not at 4 x"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_quad_lies_where_projection_says():
    """Against the pinhole formula: a 2 m square, 10 m ahead, through a camera that looks straight on."""
    canvas = Canvas(100, 100, Camera(position=(0.0, 0.0, 0.0), focal=1.0))
    canvas.quad((-1, -1, 10), (2, 0, 0), (0, 2, 0), lambda s, t: Paint(mixed((1, 1, 1), 1 + 0 * s), 4))
    rows, columns = np.nonzero(canvas.label == 4)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 119, 80, 119)  # of 200: +-1/10 of 200
    assert np.allclose(canvas.nearness[rows, columns], 0.1)


def test_the_nearer_quad_hides_the_other_in_either_order():
    def draw(order):
        canvas = Canvas(40, 40, Camera(position=(0.0, 0.0, 0.0)))
        for label in order:
            canvas.quad(
                (-1, -1, 5.0 * label), (2, 0, 0), (0, 2, 0), lambda s, t, k=label: Paint(mixed((1, 0, 0), s), k)
            )
        return canvas.label

    assert np.array_equal(draw((1, 2)), draw((2, 1)))
    assert set(np.unique(draw((1, 2)))) == {1, 255}


def test_nothing_is_seen_from_behind_or_behind_the_camera():
    canvas = Canvas(40, 40, Camera(position=(0.0, 0.0, 0.0)))
    shade = lambda s, t: Paint(mixed((1, 1, 1), s), 1)  # noqa: E731
    canvas.quad((1, -1, 5), (-2, 0, 0), (0, 2, 0), shade)
    canvas.quad((-1, -1, -5), (2, 0, 0), (0, 2, 0), shade)
    assert (canvas.label == 255).all()


def test_textures_repeat_and_stay_in_range():
    u, v = np.meshgrid(np.arange(300, dtype=np.float32), np.arange(300, dtype=np.float32))
    for noise in (grain(u, v), scatter(u, v)):
        assert np.array_equal(noise[:40, :40], noise[256:296, 256:296])
        assert -1.1 < noise.min() < -0.4 and 0.4 < noise.max() < 1.1
