"""What a loss says of outputs and targets that do not fit it, and of a loss that is none."""

import functools
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import losses
from jaxdl.core.padded import Padded
from jaxdl.losses.checks import check_loss, check_targets

F32, I32 = jnp.float32, jnp.int32
ELEMENTWISE = [
    losses.mean_squared_error,
    losses.mean_absolute_error,
    losses.huber,
    losses.binary_cross_entropy,
]
ELEMENTWISE += [losses.binary_cross_entropy_from_probabilities, losses.hinge, losses.focal]
ELEMENTWISE += [losses.log_cosh, losses.squared_hinge, losses.poisson_negative_log_likelihood]
ELEMENTWISE += [losses.mean_absolute_percentage_error, losses.mean_squared_logarithmic_error]
PUBLIC = [
    *ELEMENTWISE,
    losses.softmax_cross_entropy,
    losses.kl_divergence,
    losses.cosine_distance,
    losses.multiclass_hinge,
    losses.dice,
]


def struct(*shape, dtype=F32):
    return jax.ShapeDtypeStruct(shape, dtype)


SHAPES_DIFFER = "outputs of shape {0} and targets of shape {1} do not match"


@pytest.mark.parametrize(
    "shapes",
    [
        ((4, 3), (4,)),
        ((4,), (5,)),
        ((4, 1), (4, 4)),
        ((4,), ()),
        ((), ()),
        ((4, 2), (2, 4)),
        ((4, 1, 1), (4,)),
    ],
)
@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_shapes_that_differ_are_refused_and_both_are_named(loss, shapes):
    with pytest.raises(
        ValueError, match=re.escape(f"{loss.__name__}: " + SHAPES_DIFFER.format(*shapes))
    ):
        loss(np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.int32))


@pytest.mark.parametrize("loss", [losses.kl_divergence, losses.cosine_distance])
@pytest.mark.parametrize("shapes", [((4,), (4,)), ((4, 1), (4,)), ((4, 3), (4, 2))])
def test_losses_of_vectors_need_the_vectors_axis(loss, shapes):
    with pytest.raises(
        ValueError, match=re.escape(f"{loss.__name__}: " + SHAPES_DIFFER.format(*shapes))
    ):
        loss(np.zeros(shapes[0], np.float32), np.zeros(shapes[1], np.float32))


def test_class_labels_given_to_a_loss_of_numbers_are_pointed_to_softmax():
    with pytest.raises(
        ValueError, match="may be class labels: softmax_cross_entropy takes those"
    ):
        losses.binary_cross_entropy(jnp.zeros((4, 10)), jnp.zeros(4, I32))


@pytest.mark.parametrize("loss", PUBLIC)
def test_swapped_arguments_are_told(loss):
    outputs, targets = jnp.zeros((4, 3)), jnp.zeros((4, 3), I32)
    with pytest.raises(
        ValueError, match=rf"{loss.__name__}: outputs of shape \(4, 3\) are int32.*look swapped"
    ):
        loss(targets, outputs)


def test_labels_that_do_not_fit_the_logits_are_refused():
    logits = jnp.zeros((4, 3))
    with pytest.raises(
        ValueError,
        match=re.escape("targets of shape (4, 2) do not fit outputs of shape (4, 3) — pass"),
    ):
        losses.softmax_cross_entropy(logits, jnp.zeros((4, 2), I32))
    with pytest.raises(
        ValueError,
        match=r"targets of shape \(4,\) are float32, expected class labels as integers",
    ):
        losses.softmax_cross_entropy(logits, jnp.zeros(4))
    for shape in ((4, 1), (4,), ()):
        with pytest.raises(
            ValueError,
            match=re.escape(f"outputs of shape {shape} have no axis of two or more classes"),
        ):
            losses.softmax_cross_entropy(jnp.zeros(shape), jnp.zeros(shape[:1], I32))
    with pytest.raises(ValueError, match="targets are complex64, expected real numbers"):
        losses.mean_squared_error(jnp.zeros(4), jnp.zeros(4, jnp.complex64))


def refused(loss, outputs, targets):
    with pytest.raises(ValueError, match=r"[\w']: ") as caught:
        check_targets(loss, outputs, targets)
    return str(caught.value)


def test_labels_outside_the_classes_are_counted_and_the_first_is_shown():
    labels = np.arange(1000, dtype=np.uint8) % 10
    check_targets(losses.softmax_cross_entropy, struct(64, 10), labels)
    labels[[17, 40, 999]] = 12, 10, 11
    assert refused(losses.softmax_cross_entropy, struct(64, 10), labels) == (
        "softmax_cross_entropy: 3 of 1000 labels lie outside 0…9, the first is 12 at index 17 — give the last layer 13 "
        "outputs, or correct the labels."
    )
    smoothed = functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1)
    for loss in (
        smoothed,
        functools.partial(smoothed),
        jax.jit(losses.softmax_cross_entropy),
        jax.jit(smoothed),
    ):
        assert refused(loss, struct(64, 10), labels).startswith(
            "softmax_cross_entropy: 3 of 1000 labels lie outside"
        )


def test_labels_that_count_from_one_and_negative_labels():
    counted = refused(losses.softmax_cross_entropy, struct(64, 10), np.arange(100) % 10 + 1)
    assert counted.endswith("10 of 100 labels lie outside 0…9, the first is 10 at index 9 — the labels seem to count "
                            "from 1: subtract 1.")  # fmt: skip
    negative = refused(
        losses.softmax_cross_entropy, struct(2, 3, 10), np.array([[0, 1, 2], [3, 4, -1]])
    )
    assert (
        "1 of 6 labels lie outside 0…9, the first is -1 at index (1, 2) — classes are numbered from 0"
        in negative
    )


def test_labels_of_the_wrong_kind_or_rank():
    logits = struct(64, 10)
    assert "(100,) are float64, expected class labels as integers" in refused(
        losses.softmax_cross_entropy, logits, np.zeros(100)
    )
    assert "targets of shape (100, 3) do not fit outputs of shape (100, 10)" in refused(
        losses.softmax_cross_entropy, logits, np.zeros((100, 3), int)
    )
    assert "expected real numbers — number the classes from 0" in refused(
        losses.softmax_cross_entropy, logits, np.array(["cat", "dog"])
    )
    assert "outputs of shape (3, 1) and targets of shape (3, 2) do not match" in refused(
        losses.mean_squared_error, struct(64, 1), np.zeros((3, 2))
    )
    assert "targets are a single number" in refused(
        losses.mean_squared_error, struct(64, 1), np.array(3.0)
    )
    assert "outputs and targets look swapped" in refused(
        losses.huber, struct(64, dtype=I32), np.zeros(3)
    )
    assert "(3,) do not match" in refused(losses.cosine_distance, struct(64), np.zeros(3))


def test_label_vectors_must_be_distributions():
    loss, logits = losses.softmax_cross_entropy, struct(64, 3)
    good = np.array([[0, 1, 0], [0.2, 0.3, 0.5]], np.float32)
    check_targets(loss, logits, good)
    check_targets(loss, logits, good[:1].astype(np.uint8))
    check_targets(loss, logits, np.asarray(jnp.asarray(good, jnp.bfloat16)))
    assert (
        "1 of 2 label vectors do not sum to 1 over the classes, the first is 2 at index 1"
        in refused(loss, logits, np.array([[0, 1, 0], [1, 1, 0]]))
    )
    assert (
        "1 of 6 one-hot or soft labels lie outside 0…1, the first is -0.5 at index (1, 0)"
        in refused(loss, logits, np.array([[0, 1, 0], [-0.5, 1, 0.5]]))
    )
    assert "do not sum to 1" in refused(losses.kl_divergence, logits, np.array([[0, 1, 0.5]]))


BINARY = [
    losses.binary_cross_entropy,
    losses.binary_cross_entropy_from_probabilities,
    losses.focal,
]


@pytest.mark.parametrize("loss", BINARY)
def test_binary_targets_lie_between_zero_and_one(loss):
    check_targets(loss, struct(64, 1), np.array([0, 1, 1]))
    check_targets(loss, struct(64, 1), np.array([[True], [False]]))
    check_targets(loss, struct(64), np.array([0.0, 0.25, 1.0]))
    assert refused(loss, struct(64, 1), np.array([0, 1, 2, 3])) == (
        f"{loss.__name__}: 2 of 4 targets lie outside 0…1, the first is 2 at index 2 — pass labels 0 and 1, or "
        "probabilities; for more than two classes use softmax_cross_entropy."
    )
    assert "turn labels -1 and +1 into 0 and 1" in refused(
        loss, struct(64, 1), np.array([-1, 1])
    )
    assert "divide bytes by 255" in refused(loss, struct(64, 2), np.array([[0, 255]], np.uint8))


def test_hinge_wants_signs():
    check_targets(losses.hinge, struct(64, 1), np.array([-1, 1, 1]))
    check_targets(losses.hinge, struct(64), np.array([-1.0, 1.0]))
    assert refused(losses.hinge, struct(64, 1), np.array([1, 0, 0, 1], np.uint8)) == (
        "hinge: 2 of 4 targets are neither -1 nor +1, the first is 0 at index 1 — turn labels 0 and 1 into -1 and +1 "
        "with 2 * targets.astype(np.int32) - 1."
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, jnp.bfloat16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_targets_that_are_not_finite_are_counted(bad, dtype):
    targets = np.ones((10, 2), dtype)
    targets[3, 1] = targets[7, 0] = bad
    sentence = f"2 of 20 targets are NaN or infinite, the first is {bad} at index (3, 1)"
    for loss in (losses.mean_squared_error, losses.huber, losses.cosine_distance, losses.focal):
        assert f"{loss.__name__}: {sentence}" in refused(loss, struct(64, 2), targets)

    def own(outputs, targets):
        return outputs["y"].sum(1)

    assert f"loss 'own': {sentence}" in refused(
        own, {"y": struct(64, 2)}, {"a": np.ones(10, int), "b": targets}
    )


def test_a_loss_of_ones_own_is_not_told_what_its_targets_are():
    check_targets(lambda x, y: x, struct(64, 10), np.array([17, -3]))
    check_targets(losses.mean_squared_error, struct(64), np.zeros(0))
    check_targets(losses.softmax_cross_entropy, struct(64, 10), np.zeros(0, int))


def test_checking_sixty_thousand_labels_takes_under_five_milliseconds():
    labels, one_hot = (
        np.arange(60_000) % 10,
        np.eye(10, dtype=np.float32)[np.arange(60_000) % 10],
    )
    for loss, targets in (
        (losses.softmax_cross_entropy, labels),
        (losses.mean_squared_error, one_hot),
    ):
        seconds = []
        for _ in range(10):
            start = time.perf_counter()
            check_targets(loss, struct(64, 10), targets)
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 5e-3


@pytest.mark.sampled(10)
@pytest.mark.parametrize("loss", PUBLIC)
@pytest.mark.parametrize("batch", [1, 3, 4, 64])
def test_every_loss_here_returns_one_number_an_example(loss, batch):
    targets = struct(batch, 3)
    if loss is losses.multiclass_hinge:
        targets = struct(batch, dtype=I32)
    check_loss(loss, struct(batch, 3), targets)


def test_a_loss_that_returns_something_else_is_told_so():
    def my_loss(outputs, targets):
        return losses.mean_squared_error(outputs, targets).mean()

    with pytest.raises(ValueError, match=re.escape(
        "loss 'my_loss' returned shape (), float32 for a batch of 64 (outputs of shape (64, 3), float32 and targets of "
        "shape (64, 3), float32): return one value for each example ([batch]); fit weighs and averages them."
    )):  # fmt: skip
        check_loss(my_loss, struct(64, 3), struct(64, 3))
    with pytest.raises(
        ValueError,
        match=re.escape("loss '<lambda>' returned shape (64, 3), float32 for a batch of 64"),
    ):
        check_loss(lambda x, y: x - y, struct(64, 3), struct(64, 3))
    with pytest.raises(ValueError, match=re.escape("returned tuple (")):
        check_loss(lambda x, y: (x[:, 0], {}), struct(64, 3), struct(64, 3))
    with pytest.raises(ValueError, match="returned NoneType None"):
        check_loss(lambda x, y: None, struct(64, 3), struct(64, 3))
    with pytest.raises(
        ValueError, match="returned int32, which has no gradient: return a floating dtype"
    ):
        check_loss(lambda x, y: (x[:, 0] > 0).astype(I32), struct(64, 3), struct(64, 3))


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_mean_over_the_batch_is_not_taken_for_one_number_an_example(batch):
    def own(outputs, targets):
        return ((outputs - targets) ** 2).mean(0)

    with pytest.raises(
        ValueError,
        match=rf"loss 'own' returned shape \({batch},\), float32 for a batch of (?!{batch} )",
    ):
        check_loss(own, struct(batch, batch), struct(batch, batch))
    with pytest.raises(ValueError, match="returned shape"):
        check_loss(lambda x, y: (x - y).mean(keepdims=True)[0], struct(1, 3), struct(1, 3))


def test_a_loss_may_be_written_for_its_batch_length_and_for_pytrees():
    check_loss(lambda x, y: x.reshape(64, 3)[:, 0], struct(64, 3), struct(64, dtype=I32))
    check_loss(lambda x, y: x["a"][:, 0] + y[1], {"a": struct(8, 3)}, (struct(8), struct(8)))


def test_what_a_loss_raises_comes_through_with_a_note():
    def keras_order(targets, outputs):
        return losses.softmax_cross_entropy(outputs, targets)

    with pytest.raises(ValueError, match="outputs and targets look swapped") as caught:
        check_loss(keras_order, struct(64, 10), struct(64, dtype=I32))
    assert (
        "This came from loss 'keras_order', called with outputs of shape (64, 10), float32 and targets of shape (64,), int32."
    ) in caught.value.__notes__


def test_what_is_no_function_is_no_loss():
    with pytest.raises(
        TypeError,
        match=r"loss is 'mse', expected a function .* such as losses.mean_squared_error",
    ):
        check_loss("mse", struct(64, 3), struct(64, 3))


# --- sequences of different lengths -------------------------------------------------------------------------------

LENGTHS = np.array([2, 3, 1], np.int32)
REAL = np.arange(3) < LENGTHS[:, None]


def sequences_of(*features):
    return Padded(struct(8, 3, *features), struct(8, dtype=I32))


@pytest.mark.parametrize(
    ("loss", "features", "good", "wrong"),
    [
        (losses.softmax_cross_entropy, (4,), 3, 4),
        (losses.mean_squared_error, (1,), 0.5, np.nan),
        (losses.binary_cross_entropy, (), 0.5, -1.0),
        (losses.hinge, (1,), -1, 0),
    ],
)
def test_only_the_targets_of_steps_within_the_lengths_are_looked_at(
    loss, features, good, wrong
):
    inputs, outputs = (
        {"words": Padded(np.zeros((3, 3), np.int32), LENGTHS)},
        sequences_of(*features),
    )
    targets = np.where(REAL, good, wrong)
    check_targets(loss, outputs, targets, inputs)
    check_targets(loss, outputs, Padded(targets, LENGTHS))
    check_targets(loss, outputs, Padded(targets, LENGTHS), inputs)
    check_targets(loss, struct(8, 3, *features), Padded(targets, LENGTHS))
    targets[1, 2] = wrong
    for given in (targets, Padded(targets, LENGTHS)):
        with pytest.raises(
            ValueError, match=rf"{loss.__name__}: 1 of 9 (targets|labels) .* at index \(1, 2\)"
        ):
            check_targets(loss, outputs, given, inputs)
    with pytest.raises(
        ValueError, match=f"{loss.__name__}: . of 9"
    ):  # the lengths are not those of such outputs
        check_targets(loss, struct(8, 3, *features), np.where(REAL, good, wrong), inputs)


def test_soft_labels_of_steps_within_the_lengths_sum_to_one():
    targets = np.where(REAL[..., None], np.full((3, 3, 4), 0.25), np.nan).astype(np.float32)
    for loss in (losses.softmax_cross_entropy, losses.kl_divergence):
        check_targets(loss, sequences_of(4), Padded(targets, LENGTHS))
        with pytest.raises(
            ValueError,
            match=r"1 of 9 label vectors do not sum to 1 .* is 1.25 at index \(0, 1\)",
        ):
            check_targets(
                loss,
                sequences_of(4),
                Padded(targets + np.eye(9)[1].reshape(3, 3, 1) / 16, LENGTHS),
            )


def test_a_loss_of_ones_own_gets_finite_targets_within_the_lengths():
    targets = {"a": np.where(REAL, 1, np.nan), "b": Padded(np.where(REAL, 1, np.inf), LENGTHS)}
    inputs = Padded(np.zeros((3, 3), np.float32), LENGTHS)
    check_targets(lambda x, y: x, sequences_of(1), targets, inputs)
    with pytest.raises(
        ValueError, match=r"loss '<lambda>': 3 of 9 targets are NaN or infinite"
    ):
        check_targets(lambda x, y: x, struct(8, 3), targets, inputs)


def test_a_sequence_without_a_step_is_told():
    empty = np.array([2, 0, 1], np.int32)
    loss, targets, inputs = (
        losses.softmax_cross_entropy,
        np.zeros((3, 3), np.int32),
        Padded(np.zeros((3, 3)), empty),
    )
    with pytest.raises(
        ValueError,
        match="softmax_cross_entropy: 1 of 3 sequences have no step, the first at index 1, and a",
    ):
        check_targets(loss, sequences_of(4), targets, inputs)
    check_targets(loss, sequences_of(4), targets, inputs, np.array([1, 0, 1], np.float32))


def test_padded_sequences_with_one_target_an_example_are_told():
    values = np.zeros((3, 3, 4), np.float32)
    with pytest.raises(
        ValueError,
        match=r"of Padded sequences every step needs a target, .* such as GlobalAvgPool\(\)",
    ):
        losses.softmax_cross_entropy(Padded(values, LENGTHS), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="of Padded sequences every step needs a target"):
        check_targets(losses.softmax_cross_entropy, sequences_of(4), np.zeros(3, np.int32))


@pytest.mark.parametrize("loss", PUBLIC)
def test_several_outputs_or_targets_are_told(loss):
    sentence = (
        rf"{loss.__name__}: expected one array of (outputs|targets), got dict .* choose a part"
    )
    with pytest.raises(ValueError, match=sentence):
        check_targets(loss, {"a": struct(4, 3)}, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=sentence):
        check_targets(loss, struct(4, 3), {"a": np.zeros((4, 3))})
