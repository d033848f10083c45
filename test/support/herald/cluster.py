"""A private PostgreSQL cluster: its own data folder, socket folder (0700) and settings.

Uses the private installation that test/support/prefix makes (server, programs and pg_herald as
built here), never the system's clusters. The postmaster is a direct child of this process.
"""

import os
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import psycopg.sql
from psycopg.conninfo import make_conninfo

from . import system

# sun_path holds 107 bytes; the longest name in a socket folder is ".s.PGSQL.NNNNN.lock".
_LONGEST_SOCKET_FOLDER = 107 - len("/.s.PGSQL.65535")


class Cluster:
    _poison = True

    def __init__(self, name="cluster", settings=None, tcp=False, pg=None, engine=None, poison=True):
        self.pg = int(pg or os.environ.get("PG") or 15)
        self.engine = system.tier() == "engine" if engine is None else engine
        self.prefix = system.WORK / f"pg{self.pg}"
        if not self.program("postgres").exists():
            raise FileNotFoundError(f"no PostgreSQL in {self.prefix}: run test/support/build")
        self.folder = system.work_directory(name)
        self.data = self.folder / "data"
        self.log_path = self.folder / "log"
        self.socket_dir = self.folder
        if len(os.fsencode(self.socket_dir)) > _LONGEST_SOCKET_FOLDER:
            self.socket_dir = system.work_directory("herald", parent=None)
        self.port = system.free_port() if tcp else 5432
        self.password = secrets.token_hex(16)
        self.process = None
        self._poison = poison
        self._databases = 0
        self._shared_memory = None
        try:
            self._initialise(settings or {}, tcp)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        if not self.process:
            self.start()
        return self

    def __exit__(self, *_):
        self.close()

    def program(self, name):
        """Path of one of PostgreSQL's programs (psql, pg_dump, pgbench, …)."""
        return self.prefix / "lib" / "postgresql" / str(self.pg) / "bin" / name

    def start(self, timeout=60):
        """Starts the server and waits until it takes connections (crash recovery included)."""
        if self.process:
            raise RuntimeError("the cluster is running")
        # Whoever reads memory that he has freed finds no trace of what was there.
        poison = {"MALLOC_PERTURB_": "85"} if self._poison else {}
        with open(self.log_path, "ab") as log:
            self.process = system.spawn(
                [self.program("postgres"), "-D", self.data],
                stop_signal=signal.SIGQUIT,
                env=system.clean_environment() | poison,
                stdout=log,
                stderr=log,
            )
        system.wait_until(self._started, timeout, "the start of PostgreSQL")

    def stop(self, mode="fast", timeout=60):
        """Stops the server: smart, fast or immediate."""
        number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
        self.process.send_signal(number)
        self.process.wait(timeout)
        self.process = None

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def kill9(self):
        """SIGKILL to the postmaster; returns when it and all its children are gone."""
        lines = (self.data / "postmaster.pid").read_text().splitlines()
        self._shared_memory = lines[6].split()[1] if len(lines) > 6 else None
        self.process.send_signal(signal.SIGSTOP)  # no new children from here on
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        waits = [fd for pid in children if (fd := system.hold(int(pid))) is not None]
        self.process.kill()
        self.process.wait()
        self.process = None
        for fd in waits:
            system.await_end(fd)

    def is_ready(self):
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def close(self):
        """Stops the server and removes all its files."""
        if self.process:
            self.stop("immediate")
        elif self._shared_memory:
            # A postmaster killed for good leaves its (tiny) System V segment; it may be gone too.
            remove = ["ipcrm", "-m", self._shared_memory]
            subprocess.run(remove, stderr=subprocess.DEVNULL, check=False)
        for folder in {self.socket_dir, self.folder}:
            if folder.exists():
                shutil.rmtree(folder)
                system.forget_directory(folder)

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def conninfo(self, dbname="postgres", user="postgres", tcp=False, **options):
        """libpq's connection string; by TCP with the password (needs Cluster(tcp=True))."""
        address = {"host": self.socket_dir}
        if tcp:
            address = {"host": "127.0.0.1", "password": self.password}
        return make_conninfo(port=self.port, dbname=dbname, user=user, **address, **options)

    def environment(self, dbname="postgres"):
        """Environment for PostgreSQL's own programs."""
        return system.clean_environment() | {
            "PGHOST": str(self.socket_dir),
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGDATABASE": dbname,
        }

    def connect(self, dbname="postgres", autocommit=True, user="postgres", **options):
        return psycopg.connect(self.conninfo(dbname, user), autocommit=autocommit, **options)

    def psql(self, sql, dbname="postgres"):
        """Output of psql for a script; any error raises with the message."""
        return system.run(
            [self.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            env=self.environment(dbname),
            input=sql,
        )

    def create_database(self, name=None, extensions=("pg_herald",), template=None):
        """A new database with these extensions, or a clone of `template` as it is."""
        if not name:
            self._databases += 1
            name = f"test_{self._databases}"
        with self.connect() as connection:
            source = psycopg.sql.Identifier(template or "template0")
            connection.execute(
                psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    psycopg.sql.Identifier(name), source
                )
            )
        if not template:
            with self.connect(name) as connection:
                for extension in extensions:
                    connection.execute(
                        psycopg.sql.SQL("CREATE EXTENSION {}").format(
                            psycopg.sql.Identifier(extension)
                        )
                    )
        return name

    def drop_database(self, name):
        with self.connect() as connection:
            connection.execute(
                psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                    psycopg.sql.Identifier(name)
                )
            )

    def _initialise(self, settings, tcp):
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        system.give(password_file)
        system.run(
            [
                self.program("initdb"), "-D", self.data, "-U", "postgres", "-E", "UTF8",
                "--locale=C.UTF-8", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256",
                f"--pwfile={password_file}",
            ]
        )  # fmt: skip
        values = {
            "listen_addresses": "127.0.0.1" if tcp else "",
            "port": self.port,
            "unix_socket_directories": self.socket_dir,
            "unix_socket_permissions": "0700",
            "fsync": "off",
            "max_connections": 200,
            "timezone": "UTC",
            "log_line_prefix": "%m [%p] %d ",
            # Files in the data folder: nothing stays in /dev/shm after a kill -9.
            "dynamic_shared_memory_type": "mmap",
        }
        if self.engine:
            values |= {"shared_preload_libraries": "pg_herald", "max_worker_processes": 32}
        values |= settings
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as conf:
            for key, value in values.items():
                text = str(value).replace("'", "''")
                conf.write(f"{key} = '{text}'\n")

    def _started(self):
        if self.process.poll() is not None:
            code = self.process.returncode
            self.process = None
            raise RuntimeError(f"PostgreSQL ended with {code} at its start:\n{self.log()[-4000:]}")
        return self.is_ready()
