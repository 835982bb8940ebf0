import io
import tokenize
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

PACKAGE = Path(dl.__file__).parent


def files_that_name(option: str) -> list[str]:
    """The files of the library whose code, docstrings and messages left out, has this name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
        if any(token.type == tokenize.NAME and token.string == option for token in tokens):
            found.append(path.relative_to(PACKAGE).as_posix())
    return found


def test_an_option_of_supervised_training_is_written_in_three_files_at_most():
    assert files_that_name("clip_norm") == ["training/fit.py", "training/options.py"]


X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
DATA = (X, 100 * X[:, :1])
GIVEN = {
    "loss": losses.mean_squared_error,
    "optimizer": optax.sgd(1.0),
    "batch_size": 16,
    "clip_norm": 1e-3,
    "progress": False,
}


@pytest.mark.slow
def test_an_option_does_the_same_in_a_population_as_in_fit():
    model = dl.Dense(1)
    initial = model.init(jax.random.key(0), X)
    run = dl.fit(model, DATA, initial=initial, **GIVEN)
    moved = jax.tree.map(lambda a, b: a - b, run.params, initial[0])
    assert np.sqrt(
        sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(moved))
    ) == pytest.approx(1e-3, rel=1e-3)
    runs = dl.fit_many(model, DATA, seeds=2, **GIVEN)
    for seed, member in enumerate(runs):
        alone = dl.fit(model, DATA, seed=seed, **GIVEN)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
            member.params,
            alone.params,
        )


def test_an_option_that_is_none_is_named_with_those_that_are():
    for call, more in (
        (dl.fit_many, {"seeds": 2}),
        (dl.find_learning_rate, {"optimizer": optax.sgd}),
        (dl.compare, {}),
    ):
        given = {name: GIVEN[name] for name in ("loss", "optimizer")} | more
        with pytest.raises(TypeError, match=r"there is no argument 'clipnorm' .*clip_norm"):
            call(dl.Dense(1), DATA, clipnorm=1.0, **given)
    with pytest.raises(TypeError, match="there is no argument 'callbacks'"):
        dl.fit_many(dl.Dense(1), DATA, seeds=2, callbacks=[print], **GIVEN)
