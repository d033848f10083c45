"""The two tiers after each other on one database: the library is preloaded, then not, then again."""

import json

import pytest

from ear import Ear, dispatcher
from herald import Cluster, wait_until
from standby import Standby

pytestmark = pytest.mark.tier("engine")

BATCH = "(SELECT array_agg(to_jsonb(n)) FROM generate_series(1, 500) n)"


def change_tier(cluster, engine, mode):
    with open(cluster.data / "postgresql.conf", "a", encoding="utf-8") as conf:
        conf.write(f"shared_preload_libraries = '{'pg_herald' if engine else ''}'\n")
    if mode == "kill9":
        cluster.kill9()
        cluster.start()
    else:
        cluster.restart(mode)
    cluster.engine = engine


def send_all_ways(connection):
    """Gives the positions; some are never committed."""
    execute = connection.execute
    execute("SELECT herald.send_message('a', NULL, 'x', topic => 'news')")
    execute("BEGIN")
    execute(f"SELECT count(*) FROM herald.publish_batch('news', {BATCH})")
    seen = execute("SELECT max(pos) FROM herald.message").fetchone()[0]
    execute("ROLLBACK")
    execute(f"SELECT count(*) FROM herald.publish_batch('news', {BATCH})")
    execute("INSERT INTO herald.message (topic, content) VALUES ('news', 'y')")
    return seen


@pytest.mark.parametrize("mode", ["fast", "kill9"])
def test_tiers_after_each_other(mode):
    with Cluster("tiers") as cluster, Standby(cluster) as standby:
        database = cluster.create_database()
        standby.catch_up()  # a standby that lags has no extension to ask
        horizon, seen, stored, on_standby = 0, 0, [], [0]
        for engine in (True, False, True, False, False, True):
            change_tier(cluster, engine, mode)
            with cluster.connect(database) as connection:
                assert connection.execute("SELECT loaded FROM herald.engine").fetchone()[0] == engine
                now = connection.execute("SELECT herald.horizon()").fetchone()[0]
                assert now >= horizon, "the horizon went back at the start"
                log = connection.execute("SELECT pos, id FROM herald.read('*', 0, 10000)").fetchall()
                assert log == stored, "the log is another one after the start"
                highest = send_all_ways(connection)
                log = connection.execute("SELECT pos, id FROM herald.read('*', 0, 10000)").fetchall()
                new = log[len(stored) :]
                assert log[: len(stored)] == stored and len(new) == 502
                assert new[0][0] > max(horizon, seen, now)
                stored, seen = log, max(highest, new[-1][0])
                horizon = connection.execute("SELECT herald.horizon()").fetchone()[0]
                assert horizon >= new[-1][0]
                reset = connection.execute("SELECT why FROM herald.gap('*', %s)", [horizon])
                assert reset.fetchone()[0] is None
            with standby.connect(database) as replica:

                def page():
                    on_standby.append(replica.execute("SELECT herald.horizon()").fetchone()[0])
                    rows = replica.execute("SELECT pos, id FROM herald.read('*', 0, 10000)")
                    return rows.fetchall() == stored

                wait_until(page, what="the messages on the standby")
        assert on_standby == sorted(on_standby), "the standby's horizon went back"
        with cluster.connect(database) as connection, Ear(cluster, database, "news") as ear:
            dispatcher(connection)
            connection.execute("SELECT herald.publish('news', '\"end\"')")
            assert json.loads(ear.wait_for(1)[0])["content"] == "end"
