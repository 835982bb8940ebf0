"""A batch over several devices: each computes its part of it, and what they found is added up."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdl.core.mode import Eval, Train

AnyMode = TypeVar("AnyMode", Train, Eval)

AXIS = "devices"
"""The axis of a mesh that a batch is split along."""

SMALL = 2**17
"""Up to how many numbers an array has that is added up together with others."""

Part = Callable[[Any, Any, str | None], tuple[Any, Any]]
"""`part(whole, rows, across) -> (totals, rows)`, where `across` names the axis to add up along, or
is None.
"""


@contextlib.contextmanager
def without_mesh() -> Iterator[None]:
    """Leaves the mesh that a caller may have set by `jax.set_mesh`; decorates what trains and
    evaluates.

    Within one, every program and operation would run on all of its devices, each computing the
    same; which devices a run has, its `devices` say.
    """
    if jax.sharding.get_abstract_mesh().empty:
        yield
        return
    with jax.set_mesh(Mesh(np.empty((), object), ())):
        yield


def as_mesh(devices: Sequence[Any] | None) -> Mesh | None:
    """The devices in a row; None where the default one does all.

    Raises:
        TypeError, ValueError: they are not devices of this process, each once.
    """
    if devices is None:
        return None
    if not isinstance(devices, (list, tuple)) or not all(
        isinstance(device, jax.Device) for device in devices
    ):
        raise TypeError(
            f"devices: expected a list of devices, such as jax.devices(), got {devices!r}."
        )
    if not devices:
        raise ValueError("devices: at least one is needed; leave it out for the default one.")
    if len(set(devices)) < len(devices):
        raise ValueError(f"devices: each stands in the list once, got {list(devices)}.")
    if any(device.process_index != jax.process_index() for device in devices):
        raise ValueError(
            "devices: those of other processes cannot be used — give jax.local_devices()."
        )
    return Mesh(np.array(devices), (AXIS,))


def parts(mesh: Mesh | None) -> int:
    """How many parts a batch has."""
    return 1 if mesh is None else mesh.size


def whole(mesh: Mesh | None) -> NamedSharding | None:
    """How arrays lie of which each device has all."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh | None, axis: int = 0) -> NamedSharding | None:
    """How arrays lie of which each device has its part along an axis."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def in_parts(mesh: Mesh | None, part: Part, given: Any, rows: Any) -> tuple[Any, Any]:
    """`part` of each device's rows at once.

    Args:
        mesh: the devices; None computes all rows as one part.
        part: from what all parts are given and its own rows to totals, which it has added up, and
            to rows.
        given: what all are given.
        rows: trees of arrays, [batch, ...].

    Returns:
        The totals, and the rows of all parts, one after another.
    """
    if mesh is None:
        return part(given, rows, None)
    mapped = jax.shard_map(
        lambda given, rows: tuple(part(given, rows, AXIS)),
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        out_specs=(PartitionSpec(), PartitionSpec(AXIS)),
        check_vma=False,
    )
    return mapped(given, rows)


def added_up(tree: Any, across: str | None) -> Any:
    """The sum over all parts of each number in a tree.

    Small arrays go together: on a CPU a sum costs some 0.1 ms, however little it adds.
    """
    if across is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    together: dict[Any, list[int]] = {}
    for place, leaf in enumerate(leaves):
        together.setdefault(leaf.dtype if leaf.size <= SMALL else place, []).append(place)
    for places in together.values():
        joined, apart = ravel_pytree([leaves[place] for place in places])
        for place, total in zip(places, apart(lax.psum(joined, across)), strict=True):
            leaves[place] = total
    return structure.unflatten(leaves)


def gathered(tree: Any, across: str | None) -> Any:
    """The rows of all parts, one after another, in each part; gradients go back to the part that a
    row came from.
    """
    if across is None:
        return tree
    return jax.tree.map(lambda leaf: lax.all_gather(leaf, across, tiled=True), tree)


def own_draws(mode: AnyMode, across: str | None) -> AnyMode:
    """The mode with a key of the part's own; where there is one part, the mode."""
    if across is None or lax.axis_size(across) == 1:
        return mode
    return mode.fold_in(lax.axis_index(across))
