"""Runs each specs/*.spec with PostgreSQL's isolationtester against a fresh database and compares
its output with expected/*.out. The outputs hold no positions, ids or times.

After a deliberate change: HERALD_ACCEPT=1 pytest test/isolation writes the outputs; review the diff.
"""

import difflib
import os
import subprocess
from pathlib import Path

import pytest

from herald import spawn

HERE = Path(__file__).parent
SPECS = sorted((HERE / "specs").glob("*.spec"))
PATIENCE = 120


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_isolation(spec, cluster, database):
    library = cluster.program("postgres").parents[1] / "lib"
    process = spawn(
        [library / "pgxs/src/test/isolation/isolationtester", cluster.conninfo(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(spec.read_text(), timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    expected = HERE / "expected" / f"{spec.stem}.out"
    if os.environ.get("HERALD_ACCEPT"):
        expected.write_text(output)
    assert process.returncode == 0, output
    difference = difflib.unified_diff(
        expected.read_text().splitlines(), output.splitlines(), "expected", "output", lineterm=""
    )
    assert output == expected.read_text(), "\n".join(difference)


def test_every_expected_output_has_its_spec():
    outputs = {path.stem for path in (HERE / "expected").glob("*.out")}
    assert outputs == {path.stem for path in SPECS}
