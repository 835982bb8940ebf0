"""What a declared batchwise loss is as a value, and what it is called with."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import losses, metrics
from jaxdl.losses.batchwise import check_batchwise, is_batchwise, takes_weights

OUTPUTS = jnp.array([[1.0], [3.0], [7.0]])
TARGETS = jnp.zeros(3)


def variance(outputs, targets, *, mask, scale=1.0):
    mean = jnp.mean(outputs[:, 0], where=mask)
    return scale * jnp.mean((outputs[:, 0] - mean) ** 2, where=mask)


def weighted_variance(outputs, targets, mask, weights):
    share = weights / weights.sum()
    return (share * (outputs[:, 0] - (share * outputs[:, 0]).sum()) ** 2).sum()


@losses.batchwise
def decorated(outputs, targets, *, mask):
    return variance(outputs, targets, mask=mask)


def test_equal_functions_and_arguments_are_one_value():
    one, other = (losses.batchwise(functools.partial(variance, scale=2.0)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != losses.batchwise(variance)
    assert repr(one) == "batchwise(functools.partial(variance, scale=2.0))"
    assert float(one(OUTPUTS, TARGETS)) == pytest.approx(2 * np.var([1, 3, 7]))


@pytest.mark.parametrize(
    "loss",
    [
        losses.batchwise(variance),
        losses.batchwise(functools.partial(variance, scale=2.0)),
        decorated,
    ],
    ids=repr,
)
def test_copies_are_equal(loss):
    for made in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert made == loss
        assert hash(made) == hash(loss)
        assert takes_weights(made) == takes_weights(loss)


def test_every_row_counts_where_no_mask_is_given():
    loss = losses.batchwise(weighted_variance)
    assert float(loss(OUTPUTS, TARGETS)) == pytest.approx(np.var([1, 3, 7]))
    mask = jnp.array([True, True, False])
    assert float(loss(OUTPUTS, TARGETS, mask)) == pytest.approx(1)
    expected = np.average((np.array([1, 3]) - 2.5) ** 2, weights=[1, 3])
    assert float(loss(OUTPUTS, TARGETS, mask, jnp.array([1.0, 3.0, 0.0]))) == pytest.approx(
        expected
    )


def test_it_is_found_under_wrappers():
    loss = losses.batchwise(variance)
    for wrapped in (
        loss,
        functools.partial(loss, scale=3.0),
        jax.jit(loss),
        functools.wraps(loss)(lambda *a, **k: loss(*a, **k)),
    ):
        assert is_batchwise(wrapped)
    assert not is_batchwise(losses.mean_squared_error)
    assert not is_batchwise(functools.partial(losses.huber, delta=2.0))
    assert takes_weights(jax.jit(losses.batchwise(weighted_variance)))
    assert not takes_weights(loss)


def test_what_it_refuses():
    with pytest.raises(
        TypeError, match="'mean_squared_error' has no argument `mask` — write it as loss"
    ):
        losses.batchwise(losses.mean_squared_error)
    with pytest.raises(
        TypeError, match=r"batchwise 'variance' binds \[1\]: list cannot be hashed"
    ):
        losses.batchwise(functools.partial(variance, scale=[1]))
    with pytest.raises(
        TypeError, match=r"batchwise\(variance\): a batchwise loss is no metric"
    ):
        metrics.as_metric(losses.batchwise(variance))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda outputs, targets, *, mask: outputs,
            "returned shape .6, 2., float32 for a batch of 6: a batchwise loss returns a scalar",
        ),
        (
            lambda outputs, targets, *, mask: mask.sum(),
            "returned int32, which has no gradient",
        ),
        (lambda outputs, targets, *, mask: None, "a batchwise loss returns a scalar"),
        (variance, "returns a scalar for a batch, and examples or classes have weights"),
    ],
)
def test_what_it_may_return(function, message):
    shape = jax.ShapeDtypeStruct((6, 2), jnp.float32)
    with pytest.raises(ValueError, match=message):
        check_batchwise(losses.batchwise(function), shape, shape, weighted=True)


def test_what_it_raises_says_whose_it_is():
    shape = jax.ShapeDtypeStruct((6, 2), jnp.float32)
    with pytest.raises(TypeError) as raised:
        check_batchwise(
            losses.batchwise(lambda outputs, targets, *, mask: outputs @ targets),
            shape,
            shape,
            weighted=False,
        )
    assert "This came from loss '<lambda>'" in "".join(raised.value.__notes__)
