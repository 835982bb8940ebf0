"""Strings of spoken digits, written down without being told where one digit ends and the next
begins.

Three to five recordings are joined, each sped up or slowed down by itself to 16 to 32 frames, so
that its boundaries may lie anywhere. Two bidirectional LSTM layers of 64 units read the frames; a
dense layer gives at each the ten digits and a blank. Connectionist temporal classification sums
over all alignments of the string with the frames. The objective joins recordings inside the
program, anew in each step: the data are numbers of recordings, and the recordings themselves are
`Constants` of the objective. Adam with gradients clipped to norm 1, its step size going from 4e-3
to 0 along a cosine; batches of 64.

    python -m experiments.spoken_digits_ctc          # --quick for a short form

Strings are read off greedily: the likeliest class of each frame, repetitions and blanks left out.
The figure is the edit distance, insertions, deletions and substitutions, per digit of 1,000 strings
of recordings that training never saw.

Data: 3,000 recordings of ten digits by six speakers (Jackson et al., 2018), 2,700 joined for
training and 300 for testing, downloaded once; a string may have several speakers.
Source: Graves et al., *Connectionist temporal classification* (2006).
Expect: an edit distance of at most 0.1 per digit.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int, Key
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import data, losses
from jaxdl.core.layer import Params, State

GOALS = (Goal("edit_distance_per_digit", 0.1, "at most"),)
LEAST_DIGITS, MOST_DIGITS = 3, 5
LEAST_FRAMES, MOST_FRAMES = 16, 32
FRAMES = MOST_DIGITS * MOST_FRAMES
BLANK = 0
ABSENT = -1
MODEL = dl.Sequential(
    dl.Bidirectional(dl.LSTM(64)), dl.Bidirectional(dl.LSTM(64)), dl.Dense(11)
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the strings, the initial weights and the speeds.
        epochs: passes over the training strings.
        strings: how many are trained on.
        test_strings: how many are tested on.
        batch_size: strings a step.
        learning_rate: Adam's, at the start.
        out: where the results go.
        quick: one epoch on 128 strings, 64 test strings.
    """

    seed: int = 0
    epochs: int = 8
    strings: int = 6400
    test_strings: int = 1000
    batch_size: int = 64
    learning_rate: float = 4e-3
    out: Path = Path("runs/spoken_digits_ctc")
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Transcription(dl.Objective):
    """CTC of strings whose recordings are joined at random speeds.

    Args:
        model: from frames to the logits of the blank and the digits.
        recordings: features [recordings, frames, features].
    """

    model: dl.Layer
    recordings: dl.Constants

    def init(self, key: Array, batch: dl.Batch) -> tuple[Params, State]:
        features = self.recordings.tree.shape[-1]
        frames = jax.ShapeDtypeStruct((1, FRAMES, features), jnp.float32)
        params, state = self.model.init(key, frames)
        return params, {"model": state, "recordings": self.recordings.tree}

    def loss(
        self, params: Params, state: State, batch: dl.Batch, mode: dl.Mode
    ) -> tuple[Array, State, dict[str, Array]]:
        frames = joined(mode.key, state["recordings"], batch.inputs)
        logits, model_state = self.model.apply(params, state["model"], frames, mode)
        read = decoded(logits)[:, :MOST_DIGITS]
        right = (read == batch.targets).all(axis=1)
        metrics = {"right": right.astype(jnp.float32)}
        return losses.ctc(logits, batch.targets), state | {"model": model_state}, metrics


def joined(
    key: Key[Array, ""],
    recordings: Float[Array, "recordings frames features"],
    strings: Int[Array, "batch digits"],
) -> dl.Padded:
    """The recordings of each string one after another, each over a random number of frames.

    Args:
        key: of the numbers of frames.
        recordings: the features.
        strings: numbers of recordings, -1 behind the last of a string.

    Returns:
        Features [batch, 160, features], and how many frames each string has.
    """
    rows = jnp.arange(len(strings))[:, None]
    frames = jax.random.randint(key, strings.shape, LEAST_FRAMES, MOST_FRAMES + 1)
    frames = jnp.where(strings == ABSENT, 0, frames)
    ends = jnp.cumsum(frames, axis=1)
    times = jnp.arange(FRAMES)[None]
    digit = (times[:, :, None] >= ends[:, None]).sum(axis=2).clip(max=MOST_DIGITS - 1)
    since = times - (ends - frames)[rows, digit]
    length = jnp.maximum(frames[rows, digit], 1).astype(jnp.float32)
    share = (since.astype(jnp.float32) + 0.5) / length
    place = (share * recordings.shape[1]).astype(jnp.int32).clip(0, recordings.shape[1] - 1)
    return dl.Padded(recordings[strings[rows, digit], place], ends[:, -1])


def decoded(logits: dl.Padded) -> Int[Array, "batch time"]:
    """The classes that the likeliest alignment stands for, with blanks behind them.

    The likeliest class of each frame, one for several in a row, without blanks.
    """
    best = logits.values.argmax(axis=-1)
    before = jnp.pad(best, ((0, 0), (1, 0)), constant_values=BLANK)[:, :-1]
    read = (best != before) & (best != BLANK) & logits.mask
    place = jnp.where(read, jnp.cumsum(read, axis=1) - 1, best.shape[1])
    rows = jnp.arange(len(best))[:, None]
    return jnp.full_like(best, BLANK).at[rows, place].set(best, mode="drop")


def drawn_strings(
    rng: np.random.Generator, labels: np.ndarray, first: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random strings of recordings.

    Args:
        rng: draws them.
        labels: the digits of the recordings to draw from.
        first: the number of the first of these recordings.
        count: how many strings.

    Returns:
        Numbers of recordings [count, 5], -1 behind the last, and what is said in them, digits + 1,
        0 behind the last.
    """
    drawn = rng.integers(0, len(labels), (count, MOST_DIGITS))
    digits = rng.integers(LEAST_DIGITS, MOST_DIGITS + 1, (count, 1))
    present = np.arange(MOST_DIGITS) < digits
    strings = np.where(present, drawn + first, ABSENT)
    targets = np.where(present, labels[drawn] + 1, BLANK)
    return strings.astype(np.int32), targets.astype(np.int32)


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """The fewest insertions, deletions and substitutions that make one of the other (Levenshtein,
    1966).
    """
    costs = list(range(len(second) + 1))
    for row, one in enumerate(first, start=1):
        diagonal = costs[0]
        costs[0] = row
        for column, other in enumerate(second, start=1):
            substituted = diagonal + (one != other)
            diagonal = costs[column]
            costs[column] = min(substituted, diagonal + 1, costs[column - 1] + 1)
    return costs[-1]


def main(config: Config) -> dict[str, Any]:
    if config.quick:
        config = dataclasses.replace(config, epochs=1, strings=128, test_strings=64)
    (train_frames, train_digits), (test_frames, test_digits) = data.spoken_digits()
    rng = np.random.default_rng(config.seed)
    train = drawn_strings(rng, train_digits, 0, config.strings)
    test = drawn_strings(rng, test_digits, len(train_digits), config.test_strings)
    recordings = dl.Constants(np.concatenate([train_frames, test_frames]))
    trained = learn(Transcription(MODEL, recordings), train, test, config)

    frames = joined(jax.random.key(config.seed), recordings.tree, jnp.asarray(test[0]))
    logits = dl.predict(MODEL, trained.params, trained.state["model"], frames)
    read = [written(row) for row in np.asarray(decoded(logits))]
    said = [written(row) for row in test[1]]
    edits = [edit_distance(*pair) for pair in zip(read, said, strict=True)]
    seconds = trained.history["seconds"]
    figures = {
        "edit_distance_per_digit": sum(edits) / sum(map(len, said)),
        "strings_right": edits.count(0) / len(edits),
        "edits": np.bincount(edits),
        "seconds_an_epoch": float(np.median(seconds)),
        "history": trained.history,
    }
    show_table(
        f"Strings of 3 to 5 spoken digits: {figures['edit_distance_per_digit']:.2%} of the digits "
        "to be corrected",
        ["strings", "epochs", "edits per digit", "strings right", "s an epoch"],
        [
            [
                "of held-out recordings",
                len(seconds),
                figures["edit_distance_per_digit"],
                figures["strings_right"],
                f"{figures['seconds_an_epoch']:.1f}",
            ]
        ],
    )
    pictures.save(curves(trained), config.out, "learning_curves")
    pictures.save(alignments(frames, logits, said), config.out, "alignments")
    write_result("spoken_digits_ctc", config, figures, GOALS)
    return figures


def learn(objective: Transcription, train: Any, test: Any, config: Config) -> dl.Run:
    steps = config.epochs * -(-config.strings // config.batch_size)
    return dl.train(
        objective,
        train,
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
        clip_norm=1.0,
        epochs=config.epochs,
        batch_size=config.batch_size,
        validation=test,
        seed=config.seed,
    )


def written(classes: np.ndarray) -> list[int]:
    """The digits of a row of classes, the blanks left out."""
    return [int(each) - 1 for each in classes if each != BLANK]


def curves(trained: dl.Run) -> Figure:
    """The loss and the share of strings without a mistake, over the epochs."""
    figure, axes = pictures.panels(2)
    for axis, name, label in zip(
        axes, ("loss", "right"), ("CTC loss in nats", "share of strings right"), strict=True
    ):
        epochs = range(1, len(trained.history[name]) + 1)
        axis.plot(epochs, trained.history[name], "--", label="training")
        axis.plot(epochs, trained.history[f"validation_{name}"], label="test")
        axis.set_ylabel(label)
        pictures.count_epochs(axis)
        axis.legend(fontsize="small")
    return figure


def alignments(
    frames: dl.Padded, logits: dl.Padded, said: list[list[int]], count: int = 3
) -> Figure:
    """The features of the first strings, and below them the probability of each digit in each
    frame, the blank grey.
    """
    figure, axes = pictures.panels(count, rows=2)
    for number in range(count):
        length = int(frames.lengths[number])
        heard, probable = axes[number], axes[count + number]
        heard.imshow(np.asarray(frames.values[number, :length]).T, aspect="auto", cmap="magma")
        heard.set_title(" ".join(map(str, said[number])))
        heard.set_ylabel("coefficient")
        heard.grid(False)
        each = np.asarray(jax.nn.softmax(logits.values[number, :length], axis=-1))
        probable.plot(each[:, BLANK], color="lightgrey", label="blank")
        for digit in sorted(set(said[number])):
            probable.plot(each[:, digit + 1], color=f"C{digit}", label=str(digit))
        probable.set(xlabel="frame", ylabel="probability", xlim=(0, length - 1), ylim=(0, 1.3))
        probable.legend(fontsize="small", loc="upper center", ncols=3)
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
