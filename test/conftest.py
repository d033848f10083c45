"""Fixtures for test/cluster and test/e2e; see test/support/herald for what they give."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from herald import TIERS, Cluster, Notifier  # noqa: E402 (needs the path above)

# An orderly end with all teardowns when the whole run is told to stop.
signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_generate_tests(metafunc):
    """Each test runs in the tiers it is marked for, or of these in the one that TIER names."""
    marker = metafunc.definition.get_closest_marker("tier")
    only = os.environ.get("TIER")
    tiers = marker.args if marker else (only or "engine",)
    if unknown := set(tiers) - set(TIERS):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: no tier {', '.join(unknown)}")
    # The very strings of TIERS: pytest tells parameters apart by identity when it shares fixtures.
    chosen = [name for name in TIERS if name in tiers and only in (None, "", name)]
    metafunc.parametrize("tier", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def tier(request):
    """The test's tier, "engine" or "plain": what Cluster() makes until the test is over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIER", request.param)
        yield request.param


@pytest.fixture(scope="session")
def cluster(tier):
    """A running cluster, shared by all tests of the tier that do not stop it."""
    with Cluster() as shared:
        yield shared


@pytest.fixture
def database(cluster):
    """Name of a fresh database with the extension."""
    name = cluster.create_database()
    yield name
    cluster.drop_database(name)


@pytest.fixture
def conninfo(cluster, database):
    """libpq's connection string of the fresh database."""
    return cluster.conninfo(database)


@pytest.fixture
def notifier(conninfo):
    """A notifier on the fresh database; it must end cleanly on SIGTERM after the test."""
    with Notifier(conninfo) as running:
        yield running


@pytest.fixture
def seed(request):
    """A random seed, shown when the test fails; HERALD_SEED=… repeats a run."""
    value = int(os.environ.get("HERALD_SEED") or random.SystemRandom().getrandbits(32))
    print(f"HERALD_SEED={value} repeats {request.node.name}")
    return value
