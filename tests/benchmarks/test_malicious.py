"""Data that are made to do harm, in small numbers: each ends in a sentence or gives the honest content, and nothing gets out."""

import itertools
import os
import random
from pathlib import Path

import pytest

from benchmarks import honest, hostile_archives, hostile_files, malicious

SIZE = 1 << 20
SCRATCH = 8 << 20  # what any load takes beside its data, which is much for data so small


@pytest.mark.slow
def test_nothing_gets_out_and_all_is_named(tmp_path: Path) -> None:
    folder, outside = tmp_path / "harm", tmp_path / "harm" / "outside"
    cifar, imdb, sounds = (
        honest.honest_cifar(SIZE),
        honest.honest_imdb(SIZE),
        honest.honest_sounds(SIZE),
    )
    digits = honest.honest_digits(SIZE)
    whole = {
        one.loader: one.packing("plain", "all") + bytes(2 * honest.BLOCK)
        for one in (cifar, imdb, sounds)
    }
    attacks = itertools.chain(
        (one.attack("honest", "", whole[one.loader], "plain") for one in (cifar, imdb, sounds)),
        [hostile_files.digits_attack("honest", "", {}, digits)],
        itertools.islice(hostile_archives.archives(cifar, "plain", outside), 0, None, 29),
        itertools.islice(hostile_archives.archives(imdb, "gzip", outside), 3, None, 29),
        hostile_archives.damaged(imdb, "xz", random.Random(0), 4, 4),
        itertools.islice(hostile_archives.disguises(cifar, outside), 0, None, 11),
        itertools.islice(hostile_files.numbers(digits), 0, None, 5),
        itertools.islice(hostile_files.pickles(cifar, outside), 0, None, 29),
        itertools.islice(hostile_files.recordings(sounds), 1, None, 9),
        itertools.islice(hostile_files.texts(imdb), 0, None, 3),
    )
    result = malicious.tried(folder, tmp_path, attacks)
    failures = result.get(
        "failures", []
    )  # the honest data are small: what a load takes beside them is much for these ratios
    assert [
        one for one in failures if one["escapes"] or one["bytes"] > 1.5 * SIZE + SCRATCH
    ] == []
    assert result["escapes"] == 0
    assert result["attacks"] > 40
    outcomes = {outcome for kind in result["kinds"].values() for outcome in kind["outcomes"]}
    assert outcomes == {"named in an error", "harmless"}


@pytest.mark.sampled
@pytest.mark.parametrize("act", ["write", "link", "run", "load"])
def test_what_gets_out_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    (tmp_path / "data").mkdir()
    noted: list[str] = []
    events = {
        "write": ("open", (str(tmp_path / "planted"), "w", os.O_WRONLY)),
        "link": ("os.symlink", ("/etc/passwd", str(tmp_path / "planted"))),
        "run": ("os.system", (b"true",)),
        "load": ("open", (str(tmp_path / "data" / "file"), "w", os.O_WRONLY)),
    }
    malicious._noted(noted, tmp_path / "data", *events[act])
    assert bool(noted) == (act != "load")


@pytest.mark.slow
def test_a_loader_that_is_taken_in_is_seen() -> None:
    attack = honest.Attack("a bomb", "", "mnist", {}, None, 1)
    right = {"mnist": {"digest": "a"}}
    assert (
        malicious.judged({"outcome": "loaded", "said": "", "digest": "a"}, attack, right)
        == "harmless"
    )
    assert (
        malicious.judged({"outcome": "loaded", "said": "", "digest": "b"}, attack, right)
        == "silently wrong"
    )
    for outcome, said in (
        ("refused", "two\nlines — of it"),
        ("refused", "no advice"),
        ("unnamed", "a — b"),
        ("hung", ""),
    ):
        assert (
            malicious.judged({"outcome": outcome, "said": said, "digest": ""}, attack, right)
            == "unnamed error"
        )
    assert (
        malicious.judged(
            {"outcome": "refused", "said": "wrong — do", "digest": ""}, attack, right
        )
        == "named in an error"
    )
