"""A streaming replica of a Cluster, made with pg_basebackup in a folder of its own."""


from herald import Cluster, wait_until, work_directory
from herald.system import run


class Standby(Cluster):
    """Starts and stops as a Cluster does; reads only, until `promote`."""

    def __init__(self, primary):  # not Cluster's: there is no initdb here
        self.primary = primary
        self.pg, self.prefix, self.password = primary.pg, primary.prefix, primary.password
        self.engine = primary.engine
        self.port = primary.port
        self.folder = work_directory("standby")
        self.socket_dir = work_directory("herald", parent=None)
        self.data = self.folder / "data"
        self.log_path = self.folder / "log"
        self.process = None
        self._databases = 0
        self._shared_memory = None
        run(
            [self.program("pg_basebackup"), "-D", self.data, "--checkpoint=fast", "--no-sync",
             "--write-recovery-conf"],
            env=primary.environment(),
        )  # fmt: skip
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"unix_socket_directories = '{self.socket_dir}'\n")
            conf.write("wal_retrieve_retry_interval = '100ms'\n")

    def promote(self):
        with self.connect() as connection:
            connection.execute("SELECT pg_promote()")

    def catch_up(self):
        """Waits until everything the primary has written is visible here."""
        with self.primary.connect() as primary, self.connect() as standby:
            target = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
            wait_until(
                lambda: standby.execute(
                    "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [target]
                ).fetchone()[0],
                what="the replay of the primary's changes",
            )

    def learn_horizon(self, database):
        """Waits until all that is decided on the primary is readable here: with the engine that
        is told some time after the commits."""
        with self.primary.connect(database) as primary, self.connect(database) as standby:
            target = primary.execute("SELECT herald.horizon()").fetchone()[0]
            wait_until(
                lambda: standby.execute("SELECT herald.horizon()").fetchone()[0] >= target,
                what="the primary's horizon",
            )
