"""Values that a program is compiled for can be hashed."""

import functools

import numpy as np
import pytest

from jaxdl.core.hashable import check_hashable


@pytest.mark.parametrize("value", [1.0, "mean", (1, 2), functools.partial(max, 1), None])
def test_values_that_hash_are_accepted(value: object) -> None:
    check_hashable("loss", value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1, [2]), np.zeros(2)])
def test_a_value_that_cannot_be_hashed_is_refused(value: object) -> None:
    with pytest.raises(TypeError) as raised:
        check_hashable("loss 'own'", value)
    message = str(raised.value)
    assert message.startswith(
        f"loss 'own': {type(value).__name__} cannot be hashed (unhashable"
    )
    assert message.endswith("use numbers, strings, tuples, functions and frozen dataclasses.")
