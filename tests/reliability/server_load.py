"""A hundred clients at once on one server of this machine: no wrong answer, no lost request, bounded memory.

    python tests/reliability/server_load.py --seconds 600 --clients 100

Each client sends photos of its own and compares every answer with the offline result; one that is refused (503) waits as long as
it is told. Half way the server is stopped under load, gracefully, and started again.
"""

import argparse
import http.client
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from starlette.testclient import TestClient

from perpixel.serve.app import create_app
from perpixel.serve.limits import Limits
from serve_fakes import picture, predictors, running

BOXES = [None, *((4 * n, 3 * n, 4 * n + 20 + n, 3 * n + 18) for n in range(12))]
HEADERS = {"Content-Type": "image/png"}


def memory() -> float:
    """Resident megabytes of this process: the server, its models and the clients."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Client(threading.Thread):
    """Asks again and again; counts what it is told."""

    def __init__(self, number: int, load: "Load"):
        super().__init__(daemon=True)
        self.random, self.load = Random(number), load
        self.told: Counter[str] = Counter()
        self.longest = 0.0

    def run(self) -> None:
        while time.monotonic() < self.load.end:
            port = self.load.port
            if port is None:
                time.sleep(0.1)
                continue
            which = self.random.randrange(len(BOXES))
            began = time.monotonic()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
                connection.request("POST", "/api/predict?model=masks", self.load.photos[which], HEADERS)
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                # Nobody answers while the server is down; a request that it had taken must be answered.
                stopping = self.load.port != port
                self.told["not taken while the server was stopped" if stopping else f"lost: {error!r}"] += 1
                continue
            finally:
                connection.close()
            if answer.status == 200:
                self.told["right" if json.loads(content) == self.load.answers[which] else "wrong"] += 1
                self.longest = max(self.longest, time.monotonic() - began)
            elif answer.status == 503:
                self.told["busy"] += 1
                # A little more, so that a hundred do not come back at once.
                time.sleep(float(answer.headers.get("Retry-After", 1)) * (1 + self.random.random()))
            else:
                self.told[f"status {answer.status}"] += 1


class Load:
    """What the clients share."""

    def __init__(self, seconds: float):
        self.photos = [picture(box) for box in BOXES]
        api = TestClient(create_app(predictors()), base_url="http://127.0.0.1")
        self.answers = [api.post("/api/predict?model=masks", content=p, headers=HEADERS).json() for p in self.photos]
        self.end = time.monotonic() + seconds
        self.port: int | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    limits = Limits()
    load = Load(arguments.seconds)
    clients = [Client(number, load) for number in range(arguments.clients)]
    for client in clients:
        client.start()
    used: list[float] = []
    for part in (1, 2):
        until = load.end - arguments.seconds / 2 * (2 - part)
        with running(create_app(predictors(), limits), limits) as address:
            load.port = int(address.rpartition(":")[2])
            while time.monotonic() < until:
                time.sleep(1)
                used.append(memory())
            load.port = None
    for client in clients:
        client.join(120)
    told = sum((client.told for client in clients), Counter[str]())
    for what, count in sorted(told.items()):
        print(f"{count:8} {what}")
    each = [client.told["right"] for client in clients]
    longest = max(client.longest for client in clients)
    begin, end = used[min(len(used) - 1, 20)], used[-1]
    print(f"answers a client: {min(each)} to {max(each)}; the longest took {longest:.1f} s; {limits.places} places")
    print(f"resident memory: {begin:.0f} MiB after 20 s, {max(used):.0f} at most, {end:.0f} at the end")
    bad = [what for what in told if what not in ("right", "busy", "not taken while the server was stopped")]
    return bool(bad) or not told["right"] or min(each) == 0 or end > 1.3 * begin


if __name__ == "__main__":
    sys.exit(main())
