"""What the README prints runs as printed, and its tables are those of the JSON beside the benchmarks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_code_runs_as_printed(number, tmp_path):
    assert len(BLOCKS) >= 2
    warnings = [
        "-W",
        "error",
        "-W",
        "ignore:training stopped:RuntimeWarning",
    ]  # one block shows what a run says that stops
    run = subprocess.run(
        [sys.executable, *warnings, "-c", BLOCKS[number]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr


def test_the_two_commands_are_one_line_each():
    commands = [
        line
        for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]
    assert commands == [
        'pip install -e ".[experiments]" && python -m experiments.digits_cnn',
        'pip install -e ".[test]" && pytest',
    ]


def test_tables_come_from_the_measurements():
    from benchmarks import readme

    assert readme.filled(README) == README
    page = (ROOT / "benchmarks" / "README.md").read_text()
    assert readme.filled_page(page) == page


def test_every_file_on_the_map_exists():
    rows = re.findall(r"^\| (`[^|]+) \|", README, re.MULTILINE)
    files = [
        name
        for row in rows
        for name in re.findall(r"`([\w/.]+)`", row)
        if "/" in name or name.endswith(".py")
    ]
    assert len(files) >= 8
    for name in files:
        assert (ROOT / name).exists() or (ROOT / "jaxdl" / name).exists(), name
