#!/usr/bin/env -S /usr/bin/python3 -B
"""The model test of the order of messages: many sessions that send at random, readers of every
kind, and a checker that knows what must come of it.

    test/cluster/model.py --seeds 1-1000 [--jobs 2] [--plain] [--set fsync=on …]

One seed is one run; runs that follow each other share a database and its connections. A seed that
fails is told with the transactions that are concerned; its random decisions are the same every
time, how the sessions interleave is not. Every 25th seed kills a backend, so that the server
restarts; every 10th, with the engine, terminates the dispatcher twice.

    model_stage     one run from its beginning to its end
    model_senders   what senders do      model_readers   readers and listeners
    model_history   what was observed    model_checker   the rules
"""

import argparse
import asyncio
import concurrent.futures
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from herald import Cluster
from herald.system import tier
from model_stage import SENDERS, TRANSACTIONS, ModelFailure, Stage

GROUP = 10  # runs on one database
CHUNK = 100  # runs in one process of those by hand


def model_cluster(engine=None, settings=None):
    """A cluster in which late transactions are frequent, with the engine or, by default, as TIER
    in the environment says."""
    engine = tier() == "engine" if engine is None else engine
    late = {"herald.max_hold": 5} if engine else {}  # milliseconds
    return Cluster("model", late | (settings or {}), engine=engine)


def run_seeds(cluster, seeds, report=print, senders=SENDERS, transactions=TRANSACTIONS):
    """Runs on one fresh database. Raises ModelFailure with the seed."""

    async def run_all():
        stage = Stage(cluster, database, senders)
        try:
            for seed in seeds:
                try:
                    report(f"seed {seed}: {await stage.run(seed, transactions)}")
                except ModelFailure as failure:
                    raise ModelFailure(f"seed {seed}: {failure}") from None
        finally:
            stage.close()

    database = cluster.create_database()
    asyncio.run(run_all())
    cluster.drop_database(database)


def run_here(options, seeds):
    """Goes on after a failure. Returns how many runs failed."""
    failed = 0
    settings = dict(pair.split("=", 1) for pair in options.set)
    with model_cluster(not options.plain, settings) as cluster:
        while seeds:
            group, done = seeds[:GROUP], []

            def report(line):
                done.append(line)
                print(line, flush=True)

            try:
                run_seeds(cluster, group, report, options.senders, options.transactions)
            except ModelFailure as failure:
                failed += 1
                print(f"FAILED {failure}", flush=True)
                group = group[: len(done) + 1]
            seeds = seeds[len(group) :]
    return failed


def run_chunks(options, seeds):
    """In processes of their own, several at a time."""
    common = [sys.executable, "-B", __file__, "--senders", str(options.senders)]
    common += ["--transactions", str(options.transactions)] + ["--plain"] * options.plain
    for pair in options.set:
        common += ["--set", pair]

    def run_chunk(first):
        last = min(first + CHUNK - 1, seeds[-1])
        arguments = [*common, "--seeds", f"{first}-{last}"]
        chunk = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
        lines = chunk.stdout.splitlines()
        print("\n".join(lines[:-1]), flush=True)
        return max(sum(line.startswith("FAILED") for line in lines), chunk.returncode != 0)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        return sum(pool.map(run_chunk, seeds[::CHUNK]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1-100", metavar="A-B", help="or one number")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, of 100 runs each")
    parser.add_argument("--plain", action="store_true", help="without the engine")
    parser.add_argument("--senders", type=int, default=SENDERS)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS, help="of each sender")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    failed = (run_here if len(seeds) <= CHUNK else run_chunks)(options, seeds)
    print(f"{len(seeds) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
