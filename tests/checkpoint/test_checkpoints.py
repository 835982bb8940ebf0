"""When to save, and what is refused."""

import pytest

import jaxdl as dl
from jaxdl.checkpoint.checkpoints import Interval


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500 steps", Interval(500, "steps")),
        ("1 step", Interval(1, "steps")),
        ("2 epochs", Interval(2, "epochs")),
        ("1epoch", Interval(1, "epochs")),
        ("30 seconds", Interval(30, "seconds")),
        ("0.5 minutes", Interval(30, "seconds")),
        ("2 hours", Interval(7200, "seconds")),
    ],
)
def test_every_is_a_number_and_a_unit(text: str, interval: Interval) -> None:
    assert dl.Checkpoints("runs/x", every=text).interval == interval


@pytest.mark.parametrize(
    "text",
    ["500", "steps", "0 steps", "-1 epochs", "1.5 steps", "5 min", "", "1 step 2", "5 stepss"],
)
def test_every_without_a_meaning(text: str) -> None:
    with pytest.raises(ValueError, match="Checkpoints: every"):
        dl.Checkpoints("runs/x", every=text)


@pytest.mark.usefixtures("unchecked")
def test_a_bare_number_is_asked_what_it_counts() -> None:
    with pytest.raises(
        ValueError, match=r"a number and what it counts, in steps, epochs, .*; got 500"
    ):
        dl.Checkpoints("runs/x", every=500)  # type: ignore[arg-type]


def test_a_value() -> None:
    assert dl.Checkpoints("x", every="1 epoch") == dl.Checkpoints("x", every="1 epoch")
    assert hash(dl.Checkpoints("x")) == hash(dl.Checkpoints("x"))
    assert repr(dl.Checkpoints("x")).startswith("Checkpoints(folder='x', every=")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"keep": 0}, "keep is an integer of at least 1, or None for all, got 0"),
        (
            {"best": "validation_accuracy"},
            "say whether mode='min' or mode='max' is better for 'validation_accuracy'",
        ),
        ({"mode": "max"}, "name that metric by best"),
        ({"folder": ""}, "folder is empty"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dl.Checkpoints(**{"folder": "x"} | arguments)  # type: ignore[arg-type]


def test_better() -> None:
    least, most = (
        dl.Checkpoints("x", best="loss"),
        dl.Checkpoints("x", best="accuracy", mode="max"),
    )
    assert least.better(1.0, None)
    assert least.better(1.0, 2.0)
    assert not least.better(2.0, 2.0)
    assert most.better(3.0, 2.0)
    assert not most.better(float("nan"), None)
