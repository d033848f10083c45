"""wait_for through PgBouncer in transaction mode: more clients than server connections, each call
a transaction of its own. Skipped where there is no PgBouncer (test/support/deps fetches it)."""

import os
import shutil
import signal

import psycopg
import pytest

from ear import dispatcher
from herald import ROOT, spawn, wait_until, work_directory
from test_engine_wait import Waiter, publish

pytestmark = pytest.mark.tier("engine")

PROGRAM = shutil.which(
    "pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin:{ROOT}/.build/pgbouncer/usr/sbin"
)
SERVERS = 3  # connections of the pool


class Pooled:
    """Connects as a Cluster does, by way of PgBouncer."""

    def __init__(self, cluster, database):
        self.folder = work_directory("herald", parent=None)
        users = self.folder / "users"
        users.write_text('"postgres" ""\n')
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n{database} = host={cluster.socket_dir} port={cluster.port}\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {self.folder}\nlisten_port = 6432\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {SERVERS}\n"
        )
        with open(self.folder / "log", "ab") as log:
            self.process = spawn(
                [PROGRAM, settings], stop_signal=signal.SIGINT, stdout=log, stderr=log
            )

    def connect(self, database):
        conninfo = f"host={self.folder} port=6432 user=postgres dbname={database}"
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)

    def close(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def pooled(cluster, database):
    pool = Pooled(cluster, database)

    def ready():
        try:
            pool.connect(database).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(ready, what="PgBouncer")
        yield pool
    finally:
        pool.close()


@pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer")
def test_wait_for_through_a_transaction_pool(cluster, database, pooled):
    with cluster.connect(database) as direct, pooled.connect(database) as client:
        dispatcher(direct)

        def asleep():
            return direct.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state = 'active' AND wait_event_type = 'Extension'"
                " AND query LIKE '%%herald.wait_for%%' AND pid <> pg_backend_pid()"
            ).fetchone()[0]

        for round_number in range(3):
            after = client.execute("SELECT herald.horizon()").fetchone()[0]
            waiters = [Waiter(pooled, database, "news", after) for _ in range(SERVERS - 1)]
            wait_until(lambda: asleep() == SERVERS - 1, what="waiters asleep")
            publish(client, "news", str(round_number))  # by the connection that is left
            assert [waiter.end() for waiter in waiters] == [[str(round_number)]] * (SERVERS - 1)
        many = [Waiter(pooled, database, "never", 0, "100 ms") for _ in range(10)]
        assert [waiter.end() for waiter in many] == [[]] * 10
        servers = direct.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend'"
        ).fetchone()[0]
        assert servers <= SERVERS + 1
