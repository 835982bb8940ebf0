"""A small GPT learns to write Shakespeare, one character after another.

Four transformer blocks of four heads, 128 wide, read 64 characters and predict the next at each
place: nanoGPT's setting for a computer without a graphics card. AdamW (0.9, 0.99) with weight decay
0.1 on matrices, a warm-up of 100 steps and a cosine from 2e-3 to a tenth, gradients clipped at norm
1, batches of 12 windows drawn anywhere in the text, no dropout.

    python -m experiments.shakespeare_gpt            # two minutes

nanoGPT estimates its losses from 20 batches of random windows. Here they are means over parts of
the text, cut into windows
that lie side by side: all of the validation part, and as much of the training part. So measured,
nanoGPT's own step size of 1e-3 reaches 1.895; twice that learns more in as many steps.

Data: Tiny Shakespeare, one megabyte of plays; the first nine tenths train, the rest validates.
Source: Karpathy, *nanoGPT* (2022); Radford et al., *Language models are unsupervised multitask
learners* (2019).
Expect: validation loss at most 1.88 nats a character, the figure that nanoGPT gives for this
setting.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, models

GOALS = (Goal("validation_loss", 1.88, "at most"),)
CONTEXT = 64


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights, the windows and the sample.
        epochs: how often the losses are measured; the steps are spread over them.
        steps: updates in all.
        batch_size: windows a step.
        learning_rate: after the warm-up; its end is a tenth of it.
        temperature: of the sample.
        out: where the results go.
        quick: 20 steps, and losses from a tenth of the text.
    """

    seed: int = 0
    epochs: int = 10
    steps: int = 2000
    batch_size: int = 12
    learning_rate: float = 2e-3
    temperature: float = 0.8
    out: Path = Path("runs/shakespeare_gpt")
    quick: bool = False


def main(config: Config) -> dict[str, Any]:
    text = data.shakespeare()
    characters = data.Characters.of(text)
    ids = characters.encode(text)
    ids = ids[: len(ids) // 10] if config.quick else ids
    steps, epochs = (20, 2) if config.quick else (config.steps, config.epochs)
    train, validation = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]

    model = models.gpt(len(characters), layers=4, heads=4, features=128, context=CONTEXT)
    held = data.windows(validation, CONTEXT)
    trained = dl.fit(
        model,
        data.RandomWindows(train, CONTEXT, config.batch_size, config.seed),
        loss=losses.softmax_cross_entropy,
        optimizer=adamw(config, steps),
        epochs=epochs,
        steps_per_epoch=steps // epochs,
        validation=held,
        seed=config.seed,
    )

    seen = first(len(held[0]), data.windows(train, CONTEXT))
    figures = {
        "validation_loss": trained.history["validation_loss"][-1],
        "training_loss": dl.evaluate(
            model, trained.params, trained.state, seen, loss=losses.softmax_cross_entropy
        )["loss"],
        "parameters": dl.tree.parameter_count(trained.params),
        "seconds": sum(trained.history["seconds"]),
        "compile_seconds": trained.compile_seconds,
        "history": trained.history,
        "sample": written(model, trained, characters, config),
    }
    show_table(
        "Nats a character",
        ["", "loss"],
        [
            ["the training part", figures["training_loss"]],
            ["the validation part", figures["validation_loss"]],
            [f"each of the {len(characters)} characters alike", float(np.log(len(characters)))],
        ],
    )
    print(figures["sample"], end="\n\n")
    pictures.save(curves(trained.history, steps), config.out, "loss")
    write_result("shakespeare_gpt", config, figures, GOALS)
    return figures


def adamw(config: Config, steps: int) -> optax.GradientTransformation:
    """nanoGPT's: clipped gradients, decay of matrices and not of scales, warm-up and cosine."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(100, steps // 2),
        steps,
        end_value=config.learning_rate / 10,
    )
    adam = optax.adamw(
        schedule,
        0.9,
        0.99,
        weight_decay=0.1,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def written(
    model: dl.Layer,
    trained: dl.Run,
    characters: data.Characters,
    config: Config,
    pieces: int = 15,
) -> str:
    """What the model writes after a line break. Behind its last position it goes on from the latter
    half of what it knows.
    """
    half = CONTEXT // 2
    tokens = jnp.asarray(characters.encode("\n"))[None]
    for index in range(pieces):
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        prompt = tokens[:, -half:]
        more = dl.generate(
            model,
            trained.params,
            trained.state,
            prompt,
            CONTEXT - half,
            key=key,
            temperature=config.temperature,
        )
        tokens = jnp.concatenate([tokens, more[:, prompt.shape[1] :]], 1)
    return characters.decode(np.asarray(tokens[0, 1:]))


def curves(history: dict[str, list[float]], steps: int) -> Figure:
    """The losses after so many steps."""
    figure, (axis,) = pictures.panels(1)
    after = np.arange(1, len(history["loss"]) + 1) * (steps // len(history["loss"]))
    axis.plot(after, history["loss"], "--", label="training, mean since the point before")
    axis.plot(after, history["validation_loss"], "o-", markersize=3, label="validation part")
    axis.axhline(
        GOALS[0].limit, color="black", linewidth=0.8, linestyle=":", label="nanoGPT's figure"
    )
    axis.set(xlabel="steps", ylabel="nats a character")
    axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
