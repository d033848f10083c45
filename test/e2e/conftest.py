"""One database and one notifier for all end-to-end tests that do not kill them.

A test keeps to topics of its own (`stage.topic()`), so tests do not see each other's messages.
"""

import itertools
import json

import pytest

from herald import Notifier, wait_until


class Stage:
    """A database, a connection to it and the notifier on it."""

    def __init__(self, cluster, database, notifier):
        self.cluster, self.database, self.notifier = cluster, database, notifier
        self.connection = cluster.connect(database)
        self._names = itertools.count(1)

    def topic(self, name="topic"):
        """A topic name nobody else uses."""
        return f"{name}:{next(self._names)}"

    def connect(self, **options):
        return self.cluster.connect(self.database, **options)

    def rows(self, sql, *values):
        return self.connection.execute(sql, values).fetchall()

    def value(self, sql, *values):
        return self.rows(sql, *values)[0][0]

    def publish(self, topic, payload=1):
        """Gives the id, as text."""
        return str(self.value("SELECT herald.publish(%s, %s::jsonb)", topic, json.dumps(payload)))

    def send(self, **arguments):
        """herald.send_message with these named arguments; gives the id, as text."""
        names = {"sender": None, "recipient": None} | arguments
        call = ", ".join(f"{name} => %s" for name in names)
        return str(self.value(f"SELECT herald.send_message({call})", *names.values()))

    def horizon(self):
        return self.value("SELECT herald.horizon()")

    def positions(self, topics):
        return [pos for (pos,) in self.rows("SELECT pos FROM herald.read(%s, 0, 10000)", topics)]

    def envelope(self, identifier, max_bytes=None):
        limit = "" if max_bytes is None else f", {max_bytes:d}"
        return self.value(
            f"SELECT herald.envelope(m{limit})::text FROM herald.message_by_id(%s) m", identifier
        )

    def settle(self, notifier=None):
        """Waits until the notifier has all that is committed: what comes is then a replay."""
        notifier, horizon = notifier or self.notifier, self.horizon()

        def reached():
            return json.loads(notifier.http("/ws/stats")[1])["pos"] >= horizon

        wait_until(reached, what="the feed")

    def json(self, path):
        status, body = self.notifier.http(path)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="session")
def stage(cluster):
    database = cluster.create_database()
    with Notifier(cluster.conninfo(database)) as notifier:
        stage = Stage(cluster, database, notifier)
        yield stage
        stage.connection.close()


@pytest.fixture
def own_notifier(stage):
    """Makes notifiers on the shared database for tests that stop, kill or configure them."""
    started = []

    def make(*arguments, **options):
        started.append(Notifier(stage.cluster.conninfo(stage.database), *arguments, **options))
        started[-1].start()
        return started[-1]

    yield make
    for notifier in started:
        notifier.close()
