"""Corruption: inside the mask only, the same bytes every time, the size that was asked for."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinalign.lesions import conditions, control_region, corrupt
from clinalign.lesions.corruption import gaussian_integers, realised_sd, seed_of
from clinalign.lesions.regions import body_mask


@st.composite
def pictures(draw):
    """A random image with a body in the middle and a random mask."""
    height, width = draw(st.integers(8, 40)), draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    image = rng.integers(60, 200, (height, width, 3), dtype=np.uint8)
    if draw(st.booleans()):
        image[:] = image[:, :, :1]
    image[:2] = image[-2:] = 0
    mask = np.zeros((height, width), dtype=bool)
    y, x = draw(st.integers(0, height - 2)), draw(st.integers(0, width - 2))
    h, w = draw(st.integers(1, max(1, height // 3))), draw(st.integers(1, max(1, width // 3)))
    mask[y : y + h, x : x + w] = rng.random((h, w))[: height - y, : width - x] < 0.8
    mask[y, x] = True
    return image, mask


@given(pictures(), st.sampled_from(["noise", "inpaint", "black"]), st.sampled_from([12.0, 45.0]))
@settings(max_examples=80)
def test_outside_the_mask_every_pixel_is_unchanged(picture, kind, sigma) -> None:
    image, mask = picture
    before = image.copy()
    out = corrupt(image, mask, kind, sigma, seed_of(image, mask, kind, sigma))
    assert (image == before).all(), "the input is not touched"
    assert (out[~mask] == image[~mask]).all() and out.shape == image.shape and out.dtype == np.uint8
    again = corrupt(image, mask, kind, sigma, seed_of(image, mask, kind, sigma))
    assert out.tobytes() == again.tobytes()


def test_the_seed_depends_on_pixels_region_kind_and_sd_alone() -> None:
    image, mask = np.full((8, 8, 3), 9, dtype=np.uint8), np.eye(8, dtype=bool)
    other = image.copy()
    other[0, 0, 0] = 10
    seeds = {
        seed_of(image, mask, "noise", 45.0),
        seed_of(other, mask, "noise", 45.0),
        seed_of(image, ~mask, "noise", 45.0),
        seed_of(image, mask, "inpaint", 45.0),
        seed_of(image, mask, "noise", 12.0),
    }
    assert len(seeds) == 5 and seed_of(image.copy(), mask, "noise", 45) in seeds


GOLDEN = [-76, -38, -17, 42, -17, 149]


def test_golden_noise() -> None:
    """Pins the bytes: SHAKE-256 of b"seed", little-endian 32-bit words, through the rounded Gaussian of SD 45."""
    assert gaussian_integers(6, 45.0, b"seed").tolist() == GOLDEN
    raw = hashlib.shake_256(b"seed").digest(24)
    for position, k in enumerate(GOLDEN):
        # by hand: k is the integer whose interval [k - 1/2, k + 1/2) holds the quantile of that probability
        share = int.from_bytes(raw[4 * position : 4 * position + 4], "little") / 2**32
        below, above = (0.5 * math.erfc(-(k + half) / 45 / math.sqrt(2)) for half in (-0.5, 0.5))
        assert below <= share < above


@pytest.mark.parametrize("sigma", [0.4, 12.0, 45.0])
def test_the_noise_is_a_gaussian_of_the_sd_asked_for(sigma: float) -> None:
    from scipy import stats

    draws = gaussian_integers(200_000, sigma, b"x")
    k = np.arange(-400, 401)
    exact = float((k**2 * np.diff(stats.norm.cdf(np.arange(-400.5, 401.5) / sigma))).sum())
    assert abs(draws.mean()) < 4 * sigma / math.sqrt(200_000)
    assert draws.var() == pytest.approx(exact, rel=0.02)
    jittered = draws + np.random.default_rng(0).uniform(-0.5, 0.5, len(draws))
    if sigma > 1:
        assert stats.kstest(jittered / math.sqrt(sigma**2 + 1 / 6), "norm").pvalue > 1e-3


def test_the_realised_sd_on_mid_grey_is_the_requested_one_and_clipping_lowers_it() -> None:
    mask = np.ones((100, 100), dtype=bool)
    for level, low, high in ((128, 44.0, 45.5), (0, 22.0, 30.0)):
        image = np.full((100, 100, 3), level, dtype=np.uint8)
        out = corrupt(image, mask, "noise", 45.0, seed_of(image, mask, "noise", 45.0))
        assert low < realised_sd(image, out, mask) < high
    # on black half of a Gaussian is clipped: the mean rises by 45 / sqrt(2 pi) = 17.95
    assert out.mean() == pytest.approx(45 / math.sqrt(2 * math.pi), abs=0.5)


def test_channels_get_independent_noise() -> None:
    image = np.full((50, 50, 3), 128, dtype=np.uint8)
    change = corrupt(image, np.ones((50, 50), bool), "noise", 45.0, b"s").astype(float) - 128
    assert abs(np.corrcoef(change[:, :, 0].ravel(), change[:, :, 1].ravel())[0, 1]) < 0.06


def test_inpainting_removes_a_bright_spot_and_keeps_a_gradient() -> None:
    ramp = np.repeat(np.tile(np.arange(0, 200, 5), (40, 1))[:, :, None], 3, axis=2).astype(np.uint8)
    spot = ramp.copy()
    mask = np.zeros((40, 40), dtype=bool)
    mask[15:25, 15:25] = True
    spot[mask] = 255
    out = corrupt(spot, mask, "inpaint", 0.0, b"s")
    # a linear ramp is harmonic: the fill is the ramp itself
    assert np.abs(out[mask].astype(int) - ramp[mask]).max() <= 1


def test_the_fill_is_the_solution_of_laplaces_equation() -> None:
    """The sparse solve against plain relaxation."""
    from clinalign.lesions.corruption import _harmonic

    rng = np.random.default_rng(1)
    values = rng.integers(0, 255, (14, 12, 2)).astype(float)
    hole = rng.random((14, 12)) < 0.4
    solved = _harmonic(values, hole)
    slow = values.copy()
    slow[hole] = 100
    for _ in range(800):
        padded = np.pad(slow, ((1, 1), (1, 1), (0, 0)))
        there = np.pad(np.ones((14, 12, 1)), ((1, 1), (1, 1), (0, 0)))
        total = sum(np.roll(padded, s, a) for s in (-1, 1) for a in (0, 1))[1:-1, 1:-1]
        count = sum(np.roll(there, s, a) for s in (-1, 1) for a in (0, 1))[1:-1, 1:-1]
        slow[hole] = (total / count)[hole]
    assert np.abs(solved - slow).max() < 1e-6


def test_inpainting_matches_the_texture_around() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.clip(rng.normal(120, 10, (60, 60, 1)), 0, 255).round(), 3, axis=2).astype(np.uint8)
    mask = np.zeros((60, 60), dtype=bool)
    mask[20:40, 20:40] = True
    inside = corrupt(image, mask, "inpaint", 0.0, b"s")[mask]
    assert (inside[:, 0] == inside[:, 1]).all(), "a grey image stays grey"
    assert 6 < inside[:, 0].std() < 14


def test_crop_enlarges_a_window_of_at_most_a_fifth() -> None:
    image = np.arange(64 * 64, dtype=np.int64).reshape(64, 64)
    coded = np.stack([image // 256, image % 256, image * 0], axis=2).astype(np.uint8)
    for seed in (b"a", b"b", b"c"):
        out = corrupt(coded, np.ones((64, 64), bool), "crop", 0.0, seed).astype(int)
        rows, cols = np.divmod(out[:, :, 0] * 256 + out[:, :, 1], 64)
        assert np.ptp(rows) < 64 * math.sqrt(0.2) and np.ptp(cols) < 64 * math.sqrt(0.2)
        assert (np.diff(rows[:, 0]) >= 0).all() and (rows == rows[:, :1]).all()


def test_what_cannot_be_drawn_is_said() -> None:
    image, mask = np.zeros((8, 8, 3), dtype=np.uint8), np.ones((8, 8), dtype=bool)
    with pytest.raises(ValueError, match="unknown corruption"):
        corrupt(image, mask, "blur", 1.0, b"")
    with pytest.raises(ValueError, match="nothing is left"):
        corrupt(image, mask, "inpaint", 1.0, b"")
    with pytest.raises(ValueError, match="0 pixels"):
        corrupt(image, ~mask, "noise", 1.0, b"")
    with pytest.raises(ValueError, match="shape"):
        corrupt(image, mask[:4], "noise", 1.0, b"")


@given(pictures())
@settings(max_examples=60)
def test_a_control_has_the_same_shape_elsewhere_inside_the_body(picture) -> None:
    image, mask = picture
    control = control_region(mask, image)
    if control is None:
        return
    assert control.sum() == mask.sum() and not (control & mask).any()
    assert (control & ~body_mask(image)).sum() == 0

    def tight(m):
        rows, cols = np.nonzero(m)
        return m[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]

    shape = tight(mask)
    assert any(np.array_equal(tight(control), candidate) for candidate in (shape, shape[:, ::-1]))
    assert (control == control_region(mask, image)).all()


def test_the_control_prefers_the_other_side() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    image[4:36, 5:55] = 150
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:16, 10:20] = True
    mask[16, 10] = True
    control = control_region(mask, image)
    assert control is not None and (control == mask[:, ::-1]).all()
    avoid = control.copy()
    elsewhere = control_region(mask, image, avoid)
    assert elsewhere is not None and not (elsewhere & avoid).any()


def test_no_room_no_control() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[5:15, 5:15] = 150
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:15, 5:13] = True
    assert control_region(mask, image) is None
    assert control_region(mask & False, image) is None


def test_the_body_of_a_chest_includes_its_dark_lungs() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[5:35, 5:35] = 160
    image[10:30, 10:18] = image[10:30, 22:30] = 2
    image[1:3, 1:3] = 255  # a marker beside the patient
    body = body_mask(image)
    assert body[20, 14] and body[20, 26] and not body[1, 1] and not body[0, 20]


def test_conditions() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:10, 5:10] = True
    exact = image // 2
    with_exact = conditions(image, mask, counterfactual=exact)
    assert set(with_exact) == {"clean", "blank", "lesion_noise", "counterfactual", "control"}
    assert (with_exact["counterfactual"] == exact).all() and not with_exact["blank"].any()
    without = conditions(image, mask)
    for name in ("inpainted", "lesion_noise"):
        changed = (without[name] != image).any(axis=2)
        assert changed.any() and not (changed & ~mask).any()
    assert not ((without["control"] != image).any(axis=2) & mask).any()
    assert set(conditions(image, None)) == {"clean", "blank"}
    assert not {"counterfactual", "inpainted"} & set(conditions(image, np.ones((40, 40), bool)))


@pytest.mark.parametrize("top", [0, 3, 30])
def test_inpainting_does_not_look_beyond_the_surroundings(top: int) -> None:
    """The same values whether the picture ends behind the surroundings or goes on, at a border too."""
    rng = np.random.default_rng(top)
    image = rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    mask = np.zeros((60, 70), dtype=bool)
    mask[top : top + 9, 20:31] = True
    changed = corrupt(image, mask, "inpaint", 0.0, b"seed")
    far = image.copy()
    far[top + 9 + 7 :] = 0
    far[:, 31 + 7 :] = 255
    again = corrupt(far, mask, "inpaint", 0.0, b"seed")
    assert np.array_equal(changed[mask], again[mask])
    near = image.copy()
    near[top + 9 + 1] = 0
    assert not np.array_equal(changed[mask], corrupt(near, mask, "inpaint", 0.0, b"seed")[mask])
