"""Fixtures for test/cluster and test/e2e; see test/support/herald for what they give."""

import os
import random
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from herald import Cluster, Notifier  # noqa: E402 (needs the path above)

# An orderly end with all teardowns when the whole run is told to stop.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster():
    """A running cluster, shared by all tests of the session that do not stop it."""
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
