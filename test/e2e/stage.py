"""A cluster, a database and a notifier for the tests in JavaScript, which drive them by lines.

Standard input: one JSON object a line, {"do": "sql", "text": …, "values": […]}, {"do": "kill"},
{"do": "stop"}, {"do": "start"}. Standard output: the answer as one JSON line, {"result": …} or
{"error": …}; the first line is {"host": …, "port": …}. Everything ends at end of input.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from herald import Cluster, Notifier  # noqa: E402 (needs the path above)


def answer(value):
    print(json.dumps(value, default=str), flush=True)


def perform(request, connection, notifier):
    if request["do"] == "sql":
        cursor = connection.execute(request["text"], request.get("values") or None)
        return cursor.fetchall() if cursor.description else []
    {"kill": notifier.kill, "stop": notifier.stop, "start": notifier.start}[request["do"]]()
    return None


def main():
    with Cluster("stage") as cluster:
        database = cluster.create_database()
        conninfo = cluster.conninfo(database)
        with cluster.connect(database) as connection, Notifier(conninfo) as notifier:
            answer({"host": notifier.host, "port": notifier.port})
            for line in sys.stdin:
                try:
                    answer({"result": perform(json.loads(line), connection, notifier)})
                except Exception as error:  # reported to the test, which fails with it
                    answer({"error": f"{type(error).__name__}: {error}"})


main()
