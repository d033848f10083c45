"""A connection to PostgreSQL for asyncio: libpq by psycopg.pq, without psycopg's conversions.

The model keeps some fifty of them busy from one thread, which psycopg's own connections are too
slow for, and needs to do what they don't offer: leave after COMMIT without waiting for the answer.
One task uses a session at a time. Values are text in both directions.
"""

import asyncio
import collections
import os

from psycopg import OperationalError, pq

CANCELED, NOT_SERIALIZABLE = "57014", "40001"


class ConnectionLost(Exception):
    """The server has ended the connection, or is not there."""


class SqlError(Exception):
    def __init__(self, sqlstate, message, sql):
        super().__init__(f"{message} ({sqlstate}) in {sql[:200]}")
        self.sqlstate = sqlstate


class Session:
    """`notifications`: (channel, payload), as they came; whoever uses them takes them out."""

    def __init__(self, pgconn):
        self.pgconn = pgconn
        self.pid = pgconn.backend_pid
        self.notifications = collections.deque()
        self.tag = ""  # of the last command, "ROLLBACK" for one
        self.sql = ""  # the last command, for those who wonder what hangs
        self._loop = asyncio.get_running_loop()
        # One of our own: libpq closes its socket by itself when the server has gone.
        self._socket = os.dup(pgconn.socket)
        self._input = None
        self._loop.add_reader(self._socket, self._on_input)

    @classmethod
    async def open(cls, conninfo):
        pgconn = pq.PGconn.connect_start(conninfo.encode())
        try:
            wanted = pq.PollingStatus.WRITING
            while wanted != pq.PollingStatus.OK:
                if wanted == pq.PollingStatus.FAILED:
                    raise ConnectionLost(pgconn.error_message.decode(errors="replace"))
                await _ready(pgconn.socket, write=wanted == pq.PollingStatus.WRITING)
                wanted = pgconn.connect_poll()
        except OperationalError as error:
            raise ConnectionLost(str(error)) from None
        finally:
            if pgconn.status != pq.ConnStatus.OK:
                pgconn.finish()
        pgconn.nonblocking = 1
        return cls(pgconn)

    @property
    def closed(self):
        return self._socket is None

    def __str__(self):
        how = "closed" if self.closed else "waiting" if self._input else "at rest"
        return f"{self.pid} {how}, {self.tag} after {self.sql[:120]}"

    def close(self):
        if not self.closed:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            os.close(self._socket)
            self._socket = None
            self.pgconn.finish()
            self.wake()

    async def execute(self, sql, *parameters):
        """The rows, lists of str or None. Without parameters, sql may be several commands."""
        self._send(sql, parameters)
        await self._flush()
        return await self._results()

    async def send_and_leave(self, sql):
        """The command is on its way, and nobody waits for the answer."""
        self._send(sql, ())
        await self._flush()
        self.close()

    async def copy(self, sql, lines, last=None, error=None):
        """COPY … FROM STDIN of these lines. `last` is called before the end is sent; `error` is
        sent instead of the end."""
        self._send(sql, ())
        await self._flush()
        while self.pgconn.is_busy():
            await self.input()
        start = self.pgconn.get_result()
        if start.status != pq.ExecStatus.COPY_IN:
            return await self._results(start)
        try:
            data = "".join(f"{line}\n" for line in lines).encode()
            while not self.pgconn.put_copy_data(data):
                await self._writable()
            if last:
                last()
            while not self.pgconn.put_copy_end(error.encode() if error else None):
                await self._writable()
        except OperationalError as lost:
            self._lose(lost)
        await self._flush()
        return await self._results()

    async def input(self):
        """Returns when something came from the server, or at `wake`."""
        self._check()
        self._input = self._loop.create_future()
        try:
            await self._input
        finally:
            self._input = None
        self._check()

    def _check(self):
        if self.closed:
            raise ConnectionLost("the connection was lost")

    def _send(self, sql, parameters):
        self._check()
        self.sql = sql
        try:
            if parameters:
                values = [None if value is None else str(value).encode() for value in parameters]
                self.pgconn.send_query_params(sql.encode(), values)
            else:
                self.pgconn.send_query(sql.encode())
        except OperationalError as lost:
            self._lose(lost)

    async def _flush(self):
        try:
            while self.pgconn.flush():
                await self._writable()
        except OperationalError as lost:
            self._lose(lost)

    async def _writable(self):
        self._check()
        self._loop.add_writer(self._socket, self.wake)
        try:
            await self.input()
        finally:
            if not self.closed:
                self._loop.remove_writer(self._socket)

    async def _results(self, result=None):
        rows, error = [], None
        while True:
            if result is None:
                while self.pgconn.is_busy():
                    await self.input()
                result = self.pgconn.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.TUPLES_OK:
                rows = _rows(result)
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = error or _error(result, self.sql)
            self.tag = (result.command_status or b"").decode()
            result = None
        if self.pgconn.status == pq.ConnStatus.BAD or (error and error.sqlstate[:3] == "57P"):
            self._lose(error)
        self._take_notifications()  # what came in one piece with the answer
        if error:
            raise error
        return rows

    def _on_input(self):
        try:
            self.pgconn.consume_input()
            self._take_notifications()
        except OperationalError:
            self.close()
        self.wake()

    def _take_notifications(self):
        while notification := self.pgconn.notifies():
            self.notifications.append((notification.relname.decode(), notification.extra.decode()))

    def wake(self):
        if self._input and not self._input.done():
            self._input.set_result(None)

    def _lose(self, error):
        self.close()
        raise ConnectionLost(str(error)) from None


def _rows(result):
    columns = range(result.nfields)
    return [
        [None if (v := result.get_value(row, c)) is None else v.decode() for c in columns]
        for row in range(result.ntuples)
    ]


def _error(result, sql):
    def text(field):
        return (result.error_field(field) or b"").decode(errors="replace")

    state, message = text(pq.DiagnosticField.SQLSTATE), text(pq.DiagnosticField.MESSAGE_PRIMARY)
    return SqlError(state or "08006", message or result.error_message.decode(), sql)


async def _ready(socket, write):
    """Until the socket can be read or written."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    if write:
        loop.add_writer(socket, _done, future)
    else:
        loop.add_reader(socket, _done, future)
    try:
        await future
    finally:
        if write:
            loop.remove_writer(socket)
        else:
            loop.remove_reader(socket)


def _done(future):
    if not future.done():
        future.set_result(None)
