"""Runs each specs/*.spec with PostgreSQL's isolationtester against a fresh database and compares
its output with expected/. The outputs hold no positions, ids or times.

NAME.spec runs in both tiers; its output is NAME.out, with the engine NAME.engine.out if there is
one. NAME.engine.spec runs with the engine only. A line `# set NAME = VALUE` of a spec gives it a
server of its own with that setting.

After a deliberate change: HERALD_ACCEPT=1 pytest test/isolation writes the outputs; review the diff.
"""

import difflib
import os
import re
import subprocess
from pathlib import Path

import pytest

from herald import Cluster, spawn

HERE = Path(__file__).parent
SPECS = sorted((HERE / "specs").glob("*.spec"))
PATIENCE = 120


def expected_outputs(spec, tier):
    """Where the output of a spec may be, the one for this tier alone first."""
    name = spec.name.removesuffix(".spec").removesuffix(".engine")
    own = [HERE / "expected" / f"{name}.engine.out"] if tier == "engine" else []
    return own if spec.name.endswith(".engine.spec") else [*own, HERE / "expected" / f"{name}.out"]


def isolationtester(spec, cluster, database):
    """Exit code and output of a spec."""
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
    return process.returncode, output


def compare(spec, tier, cluster, database):
    code, output = isolationtester(spec, cluster, database)
    assert code == 0, output
    places = expected_outputs(spec, tier)
    place = next((place for place in places if place.exists()), places[-1])
    if os.environ.get("HERALD_ACCEPT"):
        if tier == "engine" and place.exists() and place.read_text() != output:
            place = places[0]
        place.write_text(output)
    expected = place.read_text()
    difference = difflib.unified_diff(
        expected.splitlines(), output.splitlines(), place.name, "output", lineterm=""
    )
    assert output == expected, "\n".join(difference)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_isolation(spec, tier, request):
    if tier == "plain" and spec.name.endswith(".engine.spec"):
        pytest.skip("needs the engine")
    settings = dict(re.findall(r"^# set (\S+) = (.+)$", spec.read_text(), re.M))
    if settings:
        with Cluster(settings=settings) as own:
            compare(spec, tier, own, own.create_database())
    else:
        compare(
            spec, tier, request.getfixturevalue("cluster"), request.getfixturevalue("database")
        )


def test_every_expected_output_has_its_spec():
    places = {place for spec in SPECS for place in expected_outputs(spec, "engine")}
    assert set((HERE / "expected").glob("*.out")) <= places
    for spec in SPECS:
        assert any(place.exists() for place in expected_outputs(spec, "engine")), spec
