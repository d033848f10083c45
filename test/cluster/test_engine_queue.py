"""A NOTIFY queue that a sleeping listener has filled never fails a send: the dispatcher says so,
keeps its place and goes on when there is room."""

import json
import os

import pytest

from ear import Ear, dispatcher, engine
from herald import Cluster, wait_until

pytestmark = pytest.mark.tier("engine")

WARNING = "herald cannot announce"


def test_more_at_once_than_the_queue_has_room_for():
    if int(os.environ.get("PG") or 15) < 17:
        pytest.skip("before PostgreSQL 17 the queue always has 8 GB")
    with Cluster("queue", {"max_notify_queue_pages": 64}) as cluster:
        database = cluster.create_database()
        with cluster.connect(database) as sender, Ear(cluster, database, "news") as ear:
            sender.execute(
                "SELECT count(*) FROM herald.publish_batch('news', (SELECT"
                " array_agg(to_jsonb(n || repeat(' ', 4000)) ORDER BY n) FROM generate_series(0, 299) n))"
            )
            payloads = ear.wait_for(300)
            contents = [json.loads(payload)["content"] for payload in payloads]
            assert [int(content) for content in contents] == list(range(300))


def test_a_full_queue_fails_no_send():
    if int(os.environ.get("PG") or 15) < 17:
        pytest.skip("before PostgreSQL 17 the queue always has 8 GB")
    with Cluster("queue", {"max_notify_queue_pages": 64}) as cluster:
        database = cluster.create_database()
        with (
            cluster.connect(database) as sender,
            cluster.connect(database, autocommit=False) as sleeper,
            Ear(cluster, database, "news") as ear,
        ):
            pid = dispatcher(sender)
            sleeper.execute("LISTEN news")
            sleeper.commit()
            sleeper.execute("SELECT 1")  # and it sleeps in this transaction
            sent = 0
            while WARNING not in cluster.log():
                for _ in range(20):
                    sender.execute(
                        "SELECT herald.publish('news', to_jsonb(%s || repeat(' ', 4000)))",
                        [f"{sent}"],
                    )
                    sent += 1
                assert sent < 2000, "the queue does not fill"
            heard = len(ear.heard)
            for _ in range(50):
                sender.execute("SELECT herald.publish('news', to_jsonb(%s::text))", [f"{sent}"])
                sent += 1
            assert heard < sent
            assert engine(sender, "dispatcher_lag") > 0
            retries = engine(sender, "wake_ups")
            wait_until(lambda: engine(sender, "wake_ups") > retries + 1, what="another attempt")
            assert cluster.log().count(WARNING) == 1
            sleeper.rollback()
            sleeper.close()  # nobody reads what it is sent from now on: that would fill up, too
            payloads = ear.wait_for(sent)
            contents = [json.loads(payload)["content"] for payload in payloads]
            assert [int(content) for content in contents] == list(range(sent))
            assert engine(sender, "dispatcher_pid") == pid
