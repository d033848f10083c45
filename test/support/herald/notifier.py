"""A herald-notifier process under test: started on a free loopback port, kept across restarts."""

import os
import select
import shutil
import signal
import urllib.error
import urllib.parse
import urllib.request

from . import system


class Notifier:
    def __init__(self, conninfo, *arguments, listen="127.0.0.1:0", binary=None, environment=None):
        self.conninfo = conninfo
        self.arguments = arguments
        self.host, _, port = listen.rpartition(":")
        self.port = int(port)
        self.binary = binary or system.build_file("herald-notifier")
        self.environment = environment or {}
        self.folder = system.work_directory("notifier")
        self.log_path = self.folder / "log"
        self.process = None

    def __enter__(self):
        if not self.process:
            self.start()
        return self

    def __exit__(self, failure, *_):
        self.close(check=failure is None)

    def start(self, wait=True, timeout=30):
        """Starts the notifier; `wait` until it listens and its feed is live."""
        if self.running:
            raise RuntimeError("the notifier is running")
        ready, write_end = os.pipe()
        with open(self.log_path, "ab") as log, os.fdopen(ready) as ready_file:
            try:
                self.process = system.spawn(
                    [
                        self.binary, "--database", self.conninfo,
                        "--listen", f"{self.host}:{self.port}",
                        *(["--ready-fd", write_end] if wait else []), *self.arguments,
                    ],
                    env=system.clean_environment() | self.environment,
                    stdout=log,
                    stderr=log,
                    pass_fds=(write_end,),
                )  # fmt: skip
            finally:
                os.close(write_end)
            if wait:
                self._read_address(ready_file, timeout)

    def stop(self, timeout=30):
        """SIGTERM and a clean end: any exit code but 0 is an error (sanitizers report by it)."""
        self.process.terminate()
        code = self.process.wait(timeout)
        self.process = None
        if code != 0:
            raise RuntimeError(f"the notifier ended with {code}:\n{self.log()[-6000:]}")
        return code

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self, kill=False, wait=True):
        self.kill() if kill else self.stop()
        self.start(wait)

    def close(self, check=True):
        """Ends the process (a failure of its own is an error if `check`) and removes its files."""
        try:
            if self.process:
                self.stop() if check else self.kill()
        finally:
            if self.process:
                self.kill()
            if self.folder.exists():
                shutil.rmtree(self.folder)
                system.forget_directory(self.folder)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def rss(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def url(self, path="/ws/connect", scheme="ws", **query):
        tail = f"?{urllib.parse.urlencode(query)}" if query else ""
        return f"{scheme}://{self.host}:{self.port}{path}{tail}"

    def http(self, path, method="GET", body=None, headers=None, timeout=10):
        """Status and body of one HTTP request; an HTTP error status is not an exception."""
        request = urllib.request.Request(
            self.url(path, scheme="http"), data=body, headers=headers or {}, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _read_address(self, ready_file, timeout):
        poll = select.poll()
        poll.register(ready_file, select.POLLIN | select.POLLHUP)
        line = ready_file.readline() if poll.poll(timeout * 1000) else ""
        if not line.endswith("\n"):
            state = f"ended with {self.process.poll()}" if not self.running else "is not ready"
            log = self.log()[-6000:]
            self.kill()
            raise RuntimeError(f"the notifier {state} after its start:\n{log}")
        self.port = int(line.rsplit(":", 1)[1])
