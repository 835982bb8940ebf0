"""Augmentation: every result is one that its definition allows, and each comes as often as it should."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.data import augment

KEY = jax.random.key(0)
DTYPES = [jnp.uint8, jnp.bfloat16]
crop = jax.jit(augment.crop, static_argnames=("padding", "mode"))
cutout = jax.jit(augment.cutout, static_argnames="size")
mixup = jax.jit(augment.mixup, static_argnames="alpha")
MOVES: dict[str, Callable[..., jax.Array]] = {
    "flip": jax.jit(augment.flip),
    "crop": crop,
    "crop_constant": partial(crop, mode="constant"),
    "cutout": cutout,
}
moves = pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)


def numbered(batch: int, height: int = 8, width: int = 6) -> np.ndarray:
    """Images in which each pixel says where it is: 1 + row · width + column, the second channel the negative."""
    positions = 1 + np.arange(height * width, dtype=np.float32).reshape(1, height, width, 1)
    return np.tile(np.concatenate([positions, -positions], -1), (batch, 1, 1, 1))


def assert_as_often(counts: np.ndarray, share: np.ndarray | float, trials: int) -> None:
    """Counts lie within five standard deviations of what their probabilities promise."""
    share = np.broadcast_to(np.asarray(share), counts.shape)
    np.testing.assert_array_less(
        np.abs(counts - share * trials), 5 * np.sqrt(trials * share * (1 - share)) + 1e-9
    )


def test_flip_mirrors_half_of_the_images():
    images = numbered(4000)
    flipped = np.asarray(MOVES["flip"](KEY, images))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == images).all((1, 2, 3))).all()
    assert_as_often(mirrored.sum(), 0.5, 4000)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("padding", [0, 3])
def test_crop_cuts_every_window_of_the_padded_images_as_often(
    padding: int, mode: Literal["reflect", "constant"]
):
    batch, height, width = 5000, 8, 6
    images = numbered(batch)
    cropped = np.asarray(crop(KEY, images, padding, mode=mode))
    edges = [(padding, padding)] * 2 + [(0, 0)]
    padded = np.pad(images[0], edges, mode=mode)
    side = 2 * padding + 1
    windows = np.stack(
        [padded[i : i + height, j : j + width] for i in range(side) for j in range(side)]
    )
    same = (cropped.reshape(batch, 1, -1) == windows.reshape(1, side**2, -1)).all(2)
    assert (same.sum(1) == 1).all()
    assert_as_often(same.sum(0), 1 / side**2, batch)


def test_crop_with_zeros_takes_a_padding_wider_than_the_image():
    cropped = np.asarray(crop(KEY, numbered(500, 2, 2), padding=5, mode="constant"))
    assert set(np.unique(cropped)) == {-4, -3, -2, -1, 0, 1, 2, 3, 4}


@pytest.mark.parametrize("size", [3, 4])
def test_cutout_zeroes_a_square_around_any_pixel(size: int):
    batch, height, width = 5000, 8, 6
    cut = np.asarray(cutout(KEY, numbered(batch), size)) == 0
    possible = np.zeros((height * width, height, width), bool)
    for index, (row, column) in enumerate(np.ndindex(height, width)):
        top, left = row - size // 2, column - size // 2
        possible[index, max(top, 0) : top + size, max(left, 0) : left + size] = True
    same = (cut[..., :1].reshape(batch, 1, -1) == possible.reshape(1, height * width, -1)).all(
        2
    )
    assert same.any(1).all()
    assert_as_often(cut[..., 0].sum(0), possible.mean(0), batch)
    np.testing.assert_array_equal(cut[..., 0], cut[..., 1])


@pytest.mark.slow
def test_mixup_mixes_each_with_one_other_by_a_beta_distributed_weight():
    batch, alpha = 600, 0.5
    targets = jnp.eye(batch)  # so that each row shows the weights that it was mixed by
    images, mixed = mixup(KEY, targets.reshape(batch, 1, batch, 1), targets, alpha)
    mixed = np.asarray(mixed)
    np.testing.assert_array_equal(np.asarray(images)[:, 0, :, 0], mixed)
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
    assert ((mixed > 0).sum(1) <= 2).all()
    others = mixed - np.diag(np.diag(mixed))
    assert ((others > 0).sum(0) <= 1).all()  # partners are a permutation
    weight = np.diag(mixed)
    assert weight.mean() == pytest.approx(0.5, abs=0.1)
    assert weight.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_mixup_keeps_the_types_of_images_and_of_numbers_to_predict():
    images, targets = jnp.ones((4, 2, 2, 1), jnp.bfloat16), jnp.arange(4.0)
    mixed = jax.eval_shape(augment.mixup, KEY, images, targets)
    assert [(array.shape, array.dtype) for array in mixed] == [
        ((4, 2, 2, 1), jnp.bfloat16),
        ((4,), jnp.float32),
    ]


@pytest.mark.sampled
@moves
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_every_dtype_is_kept_and_moved_alike(move: Callable[..., jax.Array], dtype: type):
    images = jnp.asarray(np.abs(numbered(16)))
    moved = move(KEY, images.astype(dtype))
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved.astype(jnp.float32), move(KEY, images))


@pytest.mark.slow
@moves
def test_scan_and_vmap_give_what_a_loop_gives(move: Callable[..., jax.Array]):
    batches = jnp.asarray(numbered(12)).reshape(3, 4, 8, 6, 2)
    keys = jax.random.split(KEY, 3)
    looped = np.stack([move(key, batch) for key, batch in zip(keys, batches, strict=True)])
    scanned = jax.jit(
        lambda: jax.lax.scan(lambda _, step: (None, move(*step)), None, (keys, batches))[1]
    )()
    np.testing.assert_array_equal(scanned, looped)
    np.testing.assert_array_equal(jax.jit(jax.vmap(move))(keys, batches), looped)


@moves
def test_the_key_alone_decides(move: Callable[..., jax.Array]):
    images = numbered(16)
    first, again, other = (np.asarray(move(jax.random.key(seed), images)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as users have it, without the tests' own type checks in front of its sentences."""
    return inspect.unwrap(function)


@pytest.mark.parametrize("name", ["flip", "crop", "cutout"])
def test_images_without_batch_or_channels_are_refused(name: str):
    with pytest.raises(
        ValueError,
        match=rf"^{name}: expected images \[batch, .*got shape \(8, 8, 3\) .* images\[None\]",
    ):
        unchecked(getattr(augment, name))(KEY, jnp.zeros((8, 8, 3)))


def test_a_padding_or_mode_that_is_none_is_refused():
    unchecked_crop, images = unchecked(augment.crop), jnp.zeros((2, 4, 6, 1))
    with pytest.raises(
        ValueError, match=r"^crop: padding is 4, and must be from 0 to 3 for these images"
    ):
        unchecked_crop(KEY, images, 4)
    with pytest.raises(ValueError, match=r"^crop: padding is -1"):
        unchecked_crop(KEY, images, -1, mode="constant")
    with pytest.raises(
        ValueError, match=r"^crop: mode is 'wrap', and must be 'reflect' or 'constant'"
    ):
        unchecked_crop(KEY, images, 1, mode="wrap")


def test_mixup_refuses_what_cannot_be_mixed():
    unchecked_mixup, images, targets = (
        unchecked(augment.mixup),
        jnp.zeros((2, 4, 4, 1)),
        jnp.eye(2),
    )
    with pytest.raises(ValueError, match=r"^mixup: images are uint8, .* scale them first"):
        unchecked_mixup(KEY, images.astype(jnp.uint8), targets)
    with pytest.raises(ValueError, match=r"^mixup: targets are int32, .* jax.nn.one_hot"):
        unchecked_mixup(KEY, images, jnp.array([0, 1]))
    with pytest.raises(ValueError, match=r"^mixup: alpha is 0, and must be above 0"):
        unchecked_mixup(KEY, images, targets, alpha=0)
