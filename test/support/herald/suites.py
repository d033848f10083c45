"""Runs test suites and adds them up; the second half of test/run.

    python3 -m herald.suites [--build FOLDER] [--tier engine|plain] SUITE…

Suites: unit sql isolation cluster e2e. sql and isolation run with the engine and then again
without it (a chapter *.engine.sql or *.plain.sql once); cluster and e2e run with it, but for tests
that are marked otherwise. --tier, or TIER in the environment, runs everything in that tier alone.

Two suites run at a time. Each gets one line; the full output goes to .work/test-SUITE.log and, of a
suite that failed, to the screen. The last line is `N passed, N failed`. A suite that runs no test,
crashes or takes longer than kTimeout counts as a failure of its own.
"""

import argparse
import concurrent.futures
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

from . import system
from .cluster import Cluster

kTimeout = 1800  # seconds, one program
kShown = 40_000  # characters of a failed suite's output

TEST = system.ROOT / "test"


class Suite:
    """Counts and output of one suite, of one tier of it if it has several."""

    def __init__(self, name, build, tier=None):
        self.name, self.build, self.tier = name, build, tier
        self.title = f"{name}/plain" if tier == "plain" else name
        self.passed = self.failed = self.skipped = 0
        self.log = system.WORK / f"test-{self.title.replace('/', '-')}.log"
        self.seconds = 0.0

    def execute(self):
        begin = time.monotonic()
        with open(self.log, "w", encoding="utf-8", errors="replace") as self.output:
            try:
                getattr(self, f"run_{self.name}")()
                if self.passed + self.failed == 0:
                    self.fail("no test ran")
            except Exception as error:  # whatever breaks a suite is a failed test of it
                self.fail(f"{type(error).__name__}: {error}")
        self.seconds = time.monotonic() - begin
        return self

    def note(self, text):
        self.output.write(text.rstrip("\n") + "\n")
        self.output.flush()

    def fail(self, why):
        self.failed += 1
        self.note(f"FAILED: {why}")

    def report(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        print(
            f"{self.title:<15} {self.passed:>6} passed, {self.failed} failed{skipped}"
            f"   ({self.seconds:.0f} s)",
            flush=True,
        )
        if self.failed:
            text = self.log.read_text(errors="replace")
            cut = f"[… the beginning is in {self.log}]\n" if len(text) > kShown else ""
            print(f"{cut}{text[-kShown:]}\n--- end of {self.title}", flush=True)

    def call(self, arguments, as_ourselves=False, env=None, cwd=TEST):
        """Runs a program with its output to the log. Returns (exit code, output)."""
        start = self.output.tell()
        env = (env or system.clean_environment()) | {"PYTHONDONTWRITEBYTECODE": "1"}
        process = system.spawn(
            arguments, stop_signal=signal.SIGTERM, as_ourselves=as_ourselves, env=env, cwd=cwd,
            stdout=self.output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = process.wait(kTimeout)
        except subprocess.TimeoutExpired:
            code = f"no end after {kTimeout} s"
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.output.seek(0, os.SEEK_END)
        with open(self.log, encoding="utf-8", errors="replace") as whole:
            whole.seek(start)
            return code, whole.read()

    # The suites

    def run_unit(self):
        code, text = self.call(
            ["ctest", "--test-dir", self.build, "-j2", "--output-on-failure", "--timeout", "300"],
            as_ourselves=True,
        )
        summary = re.search(r"(\d+) tests? failed out of (\d+)", text)
        failed, total = map(int, summary.groups()) if summary else (0, 0)
        self.passed += total - failed
        self.failed += failed
        if code and not failed:
            self.fail(f"ctest ended with {code}")

    def run_sql(self):
        with Cluster("sql", engine=self.tier == "engine") as cluster:
            template = cluster.create_database("template_sql", ("pg_herald", "pgtap"))
            elsewhere = tuple(f".{tier}.sql" for tier in system.TIERS if tier != self.tier)
            for file in sorted((TEST / "sql").glob("*.sql")):
                if file.name.endswith(elsewhere):
                    continue
                database = cluster.create_database(template=template)
                self.note(f"--- {file.name}")
                program = ["pg_prove", "--psql-bin", cluster.program("psql"), "-v", file]
                code, text = self.call(program, env=cluster.environment(database))
                self._count_tap(text)
                if code and not re.search(r"^not ok", text, re.M):
                    self.fail(f"{file.name}: pg_prove ended with {code}")
                cluster.drop_database(database)

    def run_isolation(self):
        self._pytest("isolation")

    def run_cluster(self):
        self._pytest("cluster")

    def run_e2e(self):
        self._pytest("e2e")
        scripts = sorted((TEST / "e2e").glob("*.test.*js"))
        if scripts:
            env = self._environment(system.work_directory("e2e-node"))
            code, text = self.call(["node", "--test", "--test-reporter=tap", *scripts], env=env)
            counts = dict(re.findall(r"^# (pass|fail|cancelled|skipped) (\d+)$", text, re.M))
            self.passed += int(counts.get("pass", 0))
            failed = int(counts.get("fail", 0)) + int(counts.get("cancelled", 0))
            self.failed += failed
            self.skipped += int(counts.get("skipped", 0))
            if not int(counts.get("pass", 0)) + failed or (code and not failed):
                self.fail(f"node --test ended with {code}")

    def _pytest(self, name):
        folder = system.work_directory(name)
        report = folder / "report.xml"
        env = self._environment(folder)
        code, _ = self.call(
            [
                sys.executable, "-B", "-m", "pytest", "-q", "--tb=short", "--durations=5",
                f"--basetemp={folder / 'tmp'}", f"--junitxml={report}", TEST / name,
            ],
            env=env,
        )  # fmt: skip
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        if report.exists():
            for suite in xml.etree.ElementTree.parse(report).iter("testsuite"):
                counts = {key: value + int(suite.get(key, 0)) for key, value in counts.items()}
        failed = counts["failures"] + counts["errors"]
        self.passed += max(counts["tests"] - failed - counts["skipped"], 0)
        self.failed += failed
        self.skipped += counts["skipped"]
        if code and not failed:
            self.fail(f"pytest ended with {code}")

    def _environment(self, folder):
        """What a suite's program needs; its temporary files go to `folder`."""
        build = system.ROOT / ".build" / self.build.name
        env = system.clean_environment() | {"HERALD_BUILD": str(build)}
        if self.tier:
            env["TIER"] = self.tier
        if len(str(folder)) < 60:  # Chromium keeps a socket there
            env["TMPDIR"] = str(folder)
        return env

    def _count_tap(self, text):
        for line in re.findall(r"^(?:not )?ok\b.*$", text, re.M):
            if re.search(r"# skip\b", line, re.I):
                self.skipped += 1
            elif line.startswith("ok") or re.search(r"# todo\b", line, re.I):
                self.passed += 1
            else:
                self.failed += 1


ALL = ("unit", "sql", "isolation", "cluster", "e2e")


def tiers_of(name, only):
    """The tiers a suite is run in, each as a Suite. None: its tests choose, or there is none."""
    if name == "unit":
        return [None]
    if only:
        return [only]
    return system.TIERS if name in ("sql", "isolation") else [None]


def main():
    parser = argparse.ArgumentParser(prog="test/run")
    parser.add_argument("--build", type=Path, default=system.ROOT / ".build" / "cmake")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(ALL))
    parser.add_argument("--tier", default=os.environ.get("TIER"), help="engine or plain, only")
    options = parser.parse_args()
    if options.tier and options.tier not in system.TIERS:
        parser.error(f"no tier {options.tier!r}; there are: {', '.join(system.TIERS)}")
    unknown = [name for name in options.suites if name not in ALL]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}; there are: {', '.join(ALL)}")

    def interrupted(number, _):
        system.end_everything()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)

    system.make_work()
    build = options.build.resolve()
    suites = [
        Suite(name, build, tier)
        for name in options.suites or ALL
        for tier in tiers_of(name, options.tier)
    ]
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        for done in concurrent.futures.as_completed([pool.submit(s.execute) for s in suites]):
            done.result().report()
    failed = sum(suite.failed for suite in suites)
    print(f"{sum(suite.passed for suite in suites)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
