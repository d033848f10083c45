"""Paths of the checkout, processes with the right account, folders that do not stay, waiting.

One reaper process (reaper.py) belongs to each Python process that spawns something; it is told of
every process and folder before they can be lost. May be used from several threads.
"""

import atexit
import os
import pwd
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / ".work"
TIERS = ("engine", "plain")

_lock = threading.Lock()
_reaper = None


def account():
    """The unprivileged account for servers when we are root, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("root cannot run PostgreSQL and there is neither 'postgres' nor 'nobody'")


def build_file(name):
    """Path of an executable of the CMake build; HERALD_BUILD names another build folder."""
    folder = Path(os.environ.get("HERALD_BUILD") or ROOT / ".build" / "cmake")
    for path in (folder / name, *sorted(folder.glob(f"*/{name}")), *folder.glob(f"*/*/{name}")):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(f"{name} is not built in {folder}: run test/support/build")


def tier():
    """What new clusters are, by the environment variable TIER: "engine" (default) or "plain"."""
    name = os.environ.get("TIER") or "engine"
    if name not in TIERS:
        raise ValueError(f"TIER must be engine or plain, not {name!r}")
    return name


def clean_environment():
    """The environment without what would redirect libpq or translate messages."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "PG" or not key.startswith(("PG", "LC_"))
    }
    return kept | {"LC_ALL": "C.UTF-8"}


def spawn(arguments, stop_signal=signal.SIGKILL, as_ourselves=False, **popen):
    """subprocess.Popen as the unprivileged account (or `as_ourselves`), in a session of its own
    (Ctrl-C reaches only us), ended with `stop_signal` should this process die."""
    popen.setdefault("env", clean_environment())
    popen.setdefault("stdin", subprocess.DEVNULL)
    owner = None if as_ourselves else account()
    if owner:
        popen |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        popen["env"] = popen["env"] | {"HOME": str(WORK)}
    process = subprocess.Popen(list(map(str, arguments)), start_new_session=True, **popen)
    _tell(f"process {process.pid} {int(stop_signal)}")
    return process


def run(arguments, **options):
    """Runs a program to its end as the unprivileged account. Returns its output (str); raises
    with the output in the message if it fails."""
    process = spawn(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.PIPE if "input" in options else subprocess.DEVNULL,
        **{key: value for key, value in options.items() if key != "input"},
    )
    output, errors = process.communicate(options.get("input"))
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {process.returncode}:\n{errors}{output}")
    return output


def work_directory(name, parent=WORK):
    """A new folder below .work that the servers may write; removed when this process ends."""
    if parent == WORK:
        make_work()
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    _tell(f"folder {path}")
    give(path)
    return path


def make_work():
    """Makes .work if it is not there; the servers' account can write into it."""
    WORK.mkdir(exist_ok=True)
    give(WORK)


def forget_directory(path):
    """The folder was removed by its owner."""
    _tell(f"forget {path}")


def free_port(preferred=0):
    """A loopback TCP port nobody listens on: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise OSError("no free TCP port on 127.0.0.1")


def wait_until(condition, timeout=30.0, what="the condition"):
    """Calls `condition` until it returns something true, which is returned. Seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def hold(pid):
    """A pidfd of a running process, None if it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def await_end(pidfd, timeout=60.0):
    """Returns when the held process has ended; closes the pidfd. Seconds."""
    try:
        if not select.select([pidfd], [], [], timeout)[0]:
            raise TimeoutError(f"a process did not end within {timeout} s")
    finally:
        os.close(pidfd)


def end_everything():
    """Ends all processes spawned here and removes all folders; at exit what is left of them."""
    with _lock:
        if _reaper and _reaper[0] == os.getpid():
            _reaper[1].stdin.close()
            _reaper[1].wait()


def give(path):
    """Makes the unprivileged account the owner, if we are root."""
    if owner := account():
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _tell(line):
    global _reaper
    with _lock:
        if _reaper is None or _reaper[0] != os.getpid():
            child = subprocess.Popen(
                [sys.executable, "-B", Path(__file__).with_name("reaper.py")],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            _reaper = (os.getpid(), child)
            atexit.register(end_everything)
            if copy := os.environ.pop("HERALD_COPY", None):  # see test/support/lib.sh
                child.stdin.write(f"folder {copy}\n")
        _reaper[1].stdin.write(line + "\n")
        _reaper[1].stdin.flush()
