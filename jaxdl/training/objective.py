"""`Objective`: what a run minimises, where it is more than a loss of outputs and targets."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Mode
from jaxdl.core.values import Value
from jaxdl.data.source import Batch
from jaxdl.layers.precision import in_precision


class Objective(Value, abc.ABC):
    """What a run minimises, as a function of parameters and a batch.

    A subclass is a frozen dataclass, whose fields hash: models, numbers, functions, other
    objectives. `train` minimises L = Σᵢ wᵢ lᵢ / Σᵢ wᵢ over each batch, with the losses lᵢ that
    `loss` returns and the examples' weights wᵢ, 0 for rows that only fill up the batch; and
    evaluates it by the same method in `Eval()`.

    >>> import dataclasses, jax, numpy as np, optax, jaxdl as dl
    >>> @dataclasses.dataclass(frozen=True)
    ... class Denoise(dl.Objective):
    ...     model: dl.Layer
    ...     noise: float = 0.1
    ...
    ...     def loss(self, params, state, batch, mode):
    ...         noise = self.noise * jax.random.normal(mode.key, batch.inputs.shape)
    ...         outputs, state = self.model.apply(params, state, batch.inputs + noise, mode)
    ...         return dl.losses.mean_squared_error(outputs, batch.inputs), state, {}
    >>> x = np.ones((8, 3), np.float32)
    >>> objective = Denoise(dl.Dense(3))
    >>> run = dl.train(objective, x, optimizer=optax.adam(1e-2), epochs=2, progress=False)
    >>> list(run.history)
    ['loss', 'learning_rate', 'seconds']
    """

    mixes: ClassVar[bool] = False
    """Whether the examples of a batch meet in the loss, as in a contrastive one. It may then return
    one number, reads `batch.mask` to leave out rows that only fill up the batch, and is computed of
    whole batches, over several devices too.
    """

    def init(self, key: Array, batch: Batch) -> tuple[Params, State]:
        """The first parameters and state; by default those of the field `model` for the inputs.

        Args:
            key: typed key.
            batch: the shapes of a batch.

        Returns:
            Two dicts of arrays. What a loss needs and does not train, such as the parameters of a
            frozen teacher or a target network, stands in the state.
        """
        model: Any = getattr(self, "model", None)
        if not isinstance(model, Layer):
            raise TypeError(
                f"{type(self).__name__}: it has no layer as its field 'model' — define init(self, "
                f"key, batch), which returns (params, state)."
            )
        return model.init(key, batch.inputs)

    @abc.abstractmethod
    def loss(
        self, params: Params, state: State, batch: Batch, mode: Mode
    ) -> tuple[Array, State, dict[str, Array]]:
        """The losses of a batch; a pure function.

        Args:
            params, state: as `init` returned them, or as they are after some steps.
            batch: `inputs`, `targets` and `weights` as the data have them (targets are () where
                there are none), and `mask`, [batch], False for rows that only fill up the batch, or
                None.
            mode: `Train(key, mask)`, or `Eval(key)`, whose key is that of the batch in each pass.

        Returns:
            `(losses, state, metrics)`: losses [batch], or one number where `mixes`; the next state,
            which evaluation does not keep; and what the history shows beside the loss, by name:
            [batch], or one number for the batch, which weighs as its examples do.
        """

    def computing_in(self, precision: str) -> "Objective":
        """The same with each layer among its fields computing in a precision."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]
        narrow = {
            field.name: in_precision(value, precision)
            for field in fields
            if isinstance(value := getattr(self, field.name), Layer)
        }
        if not narrow:
            raise ValueError(
                f"precision: {type(self).__name__} has no layer among its fields that could "
                f"compute in {precision} — leave it out, and cast in `loss`."
            )
        return dataclasses.replace(self, **narrow)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, eq=False)
class Constants(Value):
    """Arrays as a value that hashes, such as the parameters of a teacher: a field of an `Objective`
    whose `init` puts them into its state. It is equal to itself alone.

    Args:
        tree: of arrays; those of JAX are not copied.
    """

    tree: PyTree

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", jax.tree.map(jnp.asarray, self.tree))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.tree))
        return f"Constants({count} numbers)"
