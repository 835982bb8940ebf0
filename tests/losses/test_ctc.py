"""CTC against PyTorch, of sequences of different lengths, and what it says of labels that do not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.core.padded import Padded
from jaxdl.losses.checks import check_targets

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(5, 9, 4))).astype(np.float32)
STEPS = np.array([9, 7, 5, 3, 9], np.int32)
LABELS = np.array([[1, 2, 3, 1], [2, 2, 1, 0], [3, 3, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
COUNTS = np.array([4, 3, 2, 1, 0], np.int32)


def of_pytorch(logits, steps, labels, counts, blank=0):
    torch = pytest.importorskip("torch")
    x = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(labels),
        torch.tensor(steps),
        torch.tensor(counts),
        blank=blank,
        reduction="none",
    )
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


@pytest.mark.slow
def test_ctc_and_its_gradient_equal_pytorch():
    expected, slopes = of_pytorch(LOGITS, STEPS, LABELS, COUNTS)
    real = np.arange(9) < STEPS[:, None]
    padded = Padded(np.where(real[..., None], LOGITS, np.float32(np.nan)), STEPS)
    behind = np.where(np.arange(4) < COUNTS[:, None], LABELS, 99)
    for labels in (LABELS, Padded(LABELS, COUNTS), Padded(behind, COUNTS)):
        got, slope = jax.jit(
            jax.value_and_grad(lambda x, y: losses.ctc(x, y).sum(), allow_int=True)
        )(padded, labels)
        np.testing.assert_allclose(losses.ctc(padded, labels), expected, rtol=1e-5)
        np.testing.assert_allclose(got, expected.sum(), rtol=1e-5)
        np.testing.assert_allclose(slope.values, slopes, rtol=1e-3, atol=1e-5)


def test_the_blank_may_be_another_class():
    expected, _ = of_pytorch(LOGITS, np.full(5, 9), LABELS, COUNTS)
    last = np.where(LABELS == 0, 3, LABELS - 1)
    logits = np.roll(LOGITS, -1, axis=-1)
    loss = functools.partial(losses.ctc, blank=3)
    np.testing.assert_allclose(loss(logits, last), expected, rtol=1e-5)
    with pytest.raises(
        ValueError, match="blank is 4, expected the number of one of the 4 classes"
    ):
        losses.ctc(logits, last, blank=4)


def test_half_precision_is_computed_in_float32():
    half = LOGITS.astype(jnp.bfloat16)
    got = losses.ctc(half, LABELS)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, losses.ctc(half.astype(np.float32), LABELS), rtol=1e-6)


@pytest.mark.slow
def test_float64_is_kept():
    with jax.enable_x64(True):
        got = losses.ctc(LOGITS.astype(np.float64), LABELS)
        assert got.dtype == jnp.float64
        assert losses.ctc(LOGITS, LABELS).dtype == jnp.float32
    expected, _ = of_pytorch(LOGITS.astype(np.float64), np.full(5, 9), LABELS, COUNTS)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.slow
def test_labels_without_an_alignment_cost_infinity_and_have_no_gradient():
    labels = np.array([[1, 1], [1, 2], [1, 4]])
    logits = LOGITS[:3, :2]
    loss, slopes = jax.value_and_grad(lambda x: losses.ctc(x, labels)[1])(logits)
    np.testing.assert_array_equal(losses.ctc(logits, labels), [np.inf, loss, np.inf])
    assert np.isfinite(loss)
    slopes = jax.grad(lambda x: losses.ctc(x, labels).sum())(logits)
    assert np.isfinite(slopes).all()
    np.testing.assert_array_equal(np.asarray(slopes).any((1, 2)), [False, True, False])


def test_a_class_that_is_ruled_out_costs_nothing():
    logits = np.concatenate([LOGITS, np.full((5, 9, 1), -np.inf, np.float32)], axis=-1)
    np.testing.assert_allclose(
        losses.ctc(logits, LABELS), losses.ctc(LOGITS, LABELS), rtol=1e-6
    )


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([[1, 4]]), "1 of 2 labels lie outside 0…3, the first is 4"),
        (np.array([[1, -1]]), "1 of 2 labels lie outside 0…3, the first is -1"),
        (np.array([[0, 1]]), "1 of 2 labels are the blank"),
        (Padded(np.array([[1, 0]]), np.array([2])), "1 of 2 labels are the blank"),
        (np.array([[1, 1]]), "1 of 1 examples have more labels than 2 steps can hold"),
        (np.array([[1.0, 2.0]]), "targets are float64, expected class labels as integers"),
        (np.array([1, 2]), "give logits .batch, time, classes. and class numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(ValueError, match=f"ctc: .*{message}"):
        check_targets(losses.ctc, struct(1, 2, 4), targets)


def test_the_checks_know_the_blank_and_the_weights():
    loss = functools.partial(losses.ctc, blank=3)
    check_targets(loss, struct(1, 2, 4), np.array([[0, 3]]))
    check_targets(jax.jit(loss), struct(1, 2, 4), np.array([[0, 3]]))
    too_long = np.array([[1, 1], [1, 2]])
    check_targets(losses.ctc, struct(1, 2, 4), too_long, (), np.array([0.0, 1.0]))


@pytest.mark.slow
def test_a_network_learns_labels_without_their_times():
    classes = np.array([[1, 2], [2, 1], [1, 0], [2, 0]] * 4)
    lengths = np.where(classes[:, 1] == 0, 4, 6).astype(np.int32)
    inputs = np.zeros((16, 6, 3), np.float32)
    inputs[:, 1] = np.eye(3)[classes[:, 0]]
    inputs[:, 4] = np.eye(3)[classes[:, 1]]
    run = dl.fit(
        dl.Sequential(dl.Dense(8), jax.nn.relu, dl.Dense(3)),
        (Padded(inputs, lengths), Padded(classes, (classes != 0).sum(1).astype(np.int32))),
        loss=losses.ctc,
        optimizer=optax.adam(0.05),
        batch_size=6,
        epochs=60,
        progress=False,
    )
    assert run.history["loss"][-1] < 0.5 < run.history["loss"][0]
