"""Real clusters and real notifiers for tests, benchmarks and the demonstration.

    from herald import Cluster, Notifier, wait_until

    with Cluster() as cluster:                            # initdb + start; gone when the block ends
        db = cluster.create_database()                    # its name; has CREATE EXTENSION pg_herald
        with cluster.connect(db) as connection:           # psycopg.Connection, autocommit
            connection.execute("SELECT herald.send_message('a', 'b', 'hello')")
        with Notifier(cluster.conninfo(db), "--ping-interval", "0.5") as notifier:
            notifier.url("/ws/connect", user="u")         # ws://127.0.0.1:PORT/ws/connect?user=u
            status, body = notifier.http("/healthz")
            notifier.kill()                               # SIGKILL
            notifier.start()                              # same port again
        cluster.kill9()                                   # SIGKILL to the postmaster
        cluster.start()                                   # crash recovery
        wait_until(lambda: cluster.is_ready())

Cluster(name="cluster", settings={}, tcp=False, pg=15, engine=None, poison=True)
    engine: whether pg_herald is in shared_preload_libraries; None: unless TIER=plain is set
    poison: the server's memory is overwritten when it is freed; False where time is measured
    start() stop(mode="fast") restart(mode="fast") kill9() is_ready() close()
    conninfo(dbname="postgres", user="postgres", tcp=False) -> str    for libpq and --database
    connect(dbname="postgres", autocommit=True, **options)            psycopg.Connection
    psql(sql, dbname="postgres") -> str     unaligned, tuples only; raises on any error
    create_database(name=None, extensions=("pg_herald",), template=None) -> str
    drop_database(name) · program("pg_dump") -> path · environment(dbname) -> PGHOST… for programs
    log() -> str · log_path · data · socket_dir · port · pid · engine
    settings go to postgresql.conf, e.g. {"herald.max_hold": 100}.
Notifier(conninfo, *arguments, listen="127.0.0.1:0", binary=None, environment={})
    start(wait=True) stop() -> exit code 0 or an error · kill() · restart() · close()
    url(path, scheme="ws", **query) · http(path, method="GET", body=None, headers={}) -> (int, bytes)
    host · port · pid · running · log() -> str · rss() -> bytes
    start(wait=False) when the database is away: then the port must be given or known already.
wait_until(condition, timeout=30, what="…")   the condition's first true value, or TimeoutError
free_port() · work_directory(name) -> Path, removed at exit · spawn(arguments, **popen) -> Popen
ROOT (the checkout) · build_file("herald-echo") -> path of something CMake built

pytest (test/conftest.py): cluster (one a session and tier), database (a fresh one a test; str, its
name), conninfo (of that database), notifier (on that database), seed (random, printed on failure,
HERALD_SEED=… to repeat it), tier ("engine" or "plain"; also what Cluster() makes in this test).
Tests run with the engine. @pytest.mark.tier("plain") or ("engine", "plain"), on a test or as a
module's pytestmark, says otherwise; ("engine") alone, that it cannot do without. TIER=plain runs
all tests without the engine except those that are marked for it alone, TIER=engine the opposite.

Invariants: nothing survives this Python process, however it ends (see reaper.py); all files are
below .work in the checkout, except a socket folder when the checkout's path is too long for one;
run by root, servers run as an unprivileged account. Clusters run with fsync off: enough for
kill -9, not for a power cut.
"""

from .cluster import Cluster
from .notifier import Notifier
from .system import ROOT, TIERS, build_file, free_port, spawn, wait_until, work_directory

__all__ = [
    "ROOT",
    "TIERS",
    "Cluster",
    "Notifier",
    "build_file",
    "free_port",
    "spawn",
    "wait_until",
    "work_directory",
]
