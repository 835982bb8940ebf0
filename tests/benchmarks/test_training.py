"""The benchmark driver: turns, the check that all peers train one network, what is skipped, and the files."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import batch_sizes, first_step, machine, plots, training
from benchmarks.peers import ENTRIES, Entry
from benchmarks.processes import Worker
from benchmarks.report import first_steps, markdown, tables

SHORT = training.Settings(("mlp",), rounds=2, seconds=0.0, compilations=0, epochs=2)
ABSENT = Entry("absent", "benchmarks.absent", "Absent", ("no_such_package",))


@pytest.mark.slow
def test_two_rounds_of_the_smallest_network(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    entries = [*(entry for entry in ENTRIES if entry.name in ("jaxdl", "jax by hand")), ABSENT]
    training.measure(replace(SHORT, out=tmp_path), entries, console)

    result = json.loads((tmp_path / "training.json").read_text())
    assert result["skipped"] == {"absent": ["no_such_package"]}
    assert "absent: skipped, because no_such_package is not installed" in console.export_text()
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["versions"]["jax"]
    peers = result["networks"]["mlp"]["peers"]
    assert list(peers) == ["jaxdl", "jax by hand"]
    for figures in peers.values():
        rounds, step = figures["rounds"], figures["milliseconds_a_step"]
        assert len(rounds) == 2
        assert min(rounds) > 0
        assert step["min"] == min(rounds) <= step["median"] <= step["max"] == max(rounds)
        assert figures["peak_bytes"] > 50e6
        assert len(figures["inference"]["rounds"]) == 2
        assert figures["check"]["steps"] == [0, *figures["check"]["told_after"]] == [0, 5, 10]
        assert (
            figures["check"]["losses"][0]
            > figures["check"]["told"][0]
            > figures["check"]["told"][1]
        )
        assert sorted(figures["check"]["losses"], reverse=True) == figures["check"]["losses"]
    assert peers["jaxdl"]["ratio_to_jaxdl"]["rounds"] == [1.0, 1.0]
    by_hand, fit = peers["jax by hand"], peers["jaxdl"]
    assert by_hand["ratio_to_jaxdl"]["rounds"] == [
        a / b for a, b in zip(by_hand["rounds"], fit["rounds"], strict=True)
    ]

    lines = markdown(result).splitlines()
    assert lines[0] == "| ms a step (× jaxdl) | mlp |"
    assert lines[2].startswith("| jaxdl |")
    assert lines[2].endswith("(1.00) |")
    assert "| inference, ms a batch (× jaxdl) | mlp |" in lines
    (table,) = tables(result)
    assert table.row_count == 2

    plots.main(["--out", str(tmp_path)])
    assert (tmp_path / "training.png").stat().st_size > 5000
    assert not (tmp_path / "batch_sizes.png").exists()


@pytest.mark.slow
def test_first_steps_are_of_fresh_processes_in_turn(tmp_path: Path) -> None:
    arguments = [
        "--networks",
        "mlp",
        "--peers",
        "jaxdl,jax by hand",
        "--rounds",
        "2",
        "--out",
        str(tmp_path),
    ]
    first_step.main(arguments)
    result = json.loads((tmp_path / "first_step.json").read_text())
    fit, by_hand = result["networks"]["mlp"]["peers"].values()
    assert len(fit["rounds"]) == len(by_hand["rounds"]) == 2
    assert all(0.01 < seconds < 60 for seconds in (*fit["rounds"], *by_hand["rounds"]))
    assert by_hand["ratio_to_jaxdl"]["rounds"] == [
        a / b for a, b in zip(by_hand["rounds"], fit["rounds"], strict=True)
    ]
    assert next(first_steps(result)) == "| first step, s (× jaxdl) | mlp |"


def test_a_network_that_nobody_trains_is_left_out(tmp_path: Path) -> None:
    console = Console(record=True, width=200)
    result = training.measure(replace(SHORT, out=tmp_path), [ABSENT], console)
    assert result["networks"] == {}
    assert "mlp: left out, because none of the peers" in console.export_text()


def answer(*losses: float, told: float = 1.5) -> dict[str, list[float]]:
    return {"losses": list(losses), "steps": [0, 12], "told": [told], "told_after": [12]}


def test_a_peer_whose_loss_stands_apart_is_named() -> None:
    checks = {"a": answer(2.3, 1.1), "b": answer(2.3001, 1.1001), "c": answer(2.3, 1.2)}
    message = "mlp: expected one loss from all peers after 12 checked steps, but c stand apart"
    with pytest.raises(training.Disagreement, match=message):
        training.require_agreement(training.NETWORKS["mlp"], checks, 1e-3)


def test_a_peer_that_tells_another_loss_of_an_epoch_is_named() -> None:
    checks = {
        "a": answer(2.3, 1.1),
        "b": answer(2.3, 1.1, told=1.5001),
        "c": answer(2.3, 1.1, told=1.6),
    }
    message = "mlp: expected one mean loss of an epoch from all peers after 12 checked steps, but c stand apart"
    with pytest.raises(training.Disagreement, match=message):
        training.require_agreement(training.NETWORKS["mlp"], checks, 1e-3)


def test_a_loss_that_is_no_number_stands_apart() -> None:
    checks = {"a": answer(2.3, 1.1), "b": answer(2.3, 1.1), "c": answer(2.3, float("nan"))}
    with pytest.raises(training.Disagreement, match="but c stand"):
        training.require_agreement(training.NETWORKS["mlp"], checks, 1e-3)


def test_losses_within_the_tolerance_agree() -> None:
    training.require_agreement(
        training.NETWORKS["mlp"], {"a": answer(2.3, 1.1), "b": answer(2.3001, 1.1005)}, 1e-3
    )


def test_a_process_that_ends_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    message = r"broken: expected an answer to 'ready', its process ended(.|\n)*list index out of range"
    with (
        pytest.raises(RuntimeError, match=message),
        Worker("broken", "benchmarks.worker", log=log),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "mlp,transformer"], "unknown network 'transformer'"),
        (["--peers", "caffe"], "unknown peer 'caffe'"),
    ],
)
def test_unknown_names_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        training.parse(arguments)
    assert message in capsys.readouterr().err


def test_shares_count_operations_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    products = [1e9 / 10e-3, 1e9 / 20e-3]
    shares = training.shares(1e9, {"a": {"rounds": [10.0, 20.0]}}, products, "float32")
    assert shares["share"] == {"a": {"performed": pytest.approx(1)}}
    monkeypatch.setattr(machine, "device", lambda: ("gpu", "NVIDIA H100 80GB HBM3"))
    shares = training.shares(1e9, {"a": {"rounds": [10.0, 20.0]}}, products, "bfloat16")
    assert shares["share"]["a"]["of_peak"] == pytest.approx(75e9 / 989e12)


@pytest.mark.slow
def test_two_batch_sizes_of_the_smallest_network(tmp_path: Path) -> None:
    arguments = [
        "--networks",
        "mlp",
        "--peers",
        "jax by hand",
        "--factor",
        "8",
        "--largest",
        "8",
        "--seconds",
        "0",
    ]
    batch_sizes.main([*arguments, "--out", str(tmp_path)])
    answers = json.loads((tmp_path / "batch_sizes.json").read_text())["networks"]["mlp"][
        "jax by hand"
    ]
    assert [answer["batch"] for answer in answers] == [1, 8]
    assert all(
        answer["training"] > 0 < answer["inference"] and answer["ended"] is None
        for answer in answers
    )
    assert answers[0]["peak_bytes"] <= answers[1]["peak_bytes"]
    plots.main(["--out", str(tmp_path)])
    assert (tmp_path / "batch_sizes.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("milliseconds", "size", "reason"),
    [
        (1999.0, 1e6, None),
        (2001.0, 1e6, "a step took longer than 2.0 s"),
        (1.0, 1e15, "it held more than 50% of the machine"),
    ],
)
def test_a_batch_size_is_the_last_by_time_or_memory(
    milliseconds: float, size: float, reason: str | None
) -> None:
    given = argparse.Namespace(longest=2.0, memory=0.5)
    ended = batch_sizes.limit({"training": milliseconds, "peak_bytes": size}, given)
    assert ended is None if reason is None else str(ended).startswith(reason)


def test_networks_measured_before_are_kept_on_the_same_machine_with_the_same_versions(
    tmp_path: Path,
) -> None:
    now = machine.description()
    path = tmp_path / "training.json"
    training.write({"machine": {**now, "date": "2001-01-01"}, "networks": {"mlp": {}}}, path)
    assert training.earlier(path) == {"mlp": {}}
    training.write({"machine": {**now, "cores": 999}, "networks": {"mlp": {}}}, path)
    assert training.earlier(path) == {}
    assert training.earlier(tmp_path / "nowhere.json") == {}
