"""The order of measurement: every peer at one effort, in turn, before any goes on to the next.

Owns: the options that all measurements share, the sweep over ef with its repeats and medians, and the
JSON lines. What else the machine does therefore meets all peers alike. Does not own any peer (main.rs,
peers.py) or what the numbers say (report.py).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

MODALITIES = ("text", "image")
# A peer's threads spin for a moment after each call; they must not take time from the next peer.
PAUSE_SECONDS = 0.05
# The least gain in recall over two steps that makes a further step worth its time.
GAIN_MIN = 0.002
RECALL100_EF = 100
# Selectivities of the filter, the recall at which its sweep ends, and its queries.
SHARES = (0.5, 0.1, 0.01, 0.001)
FILTER_STOP = 0.97
FILTER_QUERIES = 100


def add_options(parser):
    parser.add_argument("--threads", type=numbers, default=[1], help="thread counts of batches, such as 1,2")
    parser.add_argument("--build-threads", type=int, help="default: the largest of --threads")
    parser.add_argument("--m", type=int, default=16, help="neighbours kept per vector and layer")
    parser.add_argument("--efc", type=int, default=200, help="candidates considered when a vector is linked")
    parser.add_argument("--ef", type=numbers, default=[10, 20, 40, 80, 160, 320, 640, 1280])
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--queries", type=int, help="ask only so many of each modality")
    parser.add_argument("--singles", type=int, default=300, help="single queries of one latency run")
    parser.add_argument("--stop", type=float, default=0.995, help="recall at which a sweep ends")
    parser.add_argument("--recall100", action="store_true", help="measure recall@100 too, where ef allows")


def numbers(text):
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1, such as 1,2")
    return found


def parse(parser):
    options = parser.parse_args()
    options.build_threads = options.build_threads or max(options.threads)
    return options


class Lines:
    """JSON lines, written to a file if there is one, and printed in full or as `show` makes them."""

    def __init__(self, path, show=json.dumps):
        self.file = Path(path).open("w") if path else None
        self.show, self.rows = show, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.file:
            self.file.close()

    def add(self, row):
        self.rows.append(row)
        print(self.show(row), flush=True)
        if self.file:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()


def run(workers, options, lines):
    """Measures all workers over their efforts; adds a line per worker, modality, effort and threads."""
    for modality in MODALITIES:
        recalls = {worker.name: [] for worker in workers}
        rising = list(workers)
        for step in range(len(options.ef)):
            rising = [w for w in rising if step < len(efforts(w, options))]
            measured = {w.name: Step(w, modality, efforts(w, options)[step]) for w in rising}
            for repeat in range(options.repeats):
                # Everyone goes first once, so that no peer always follows the same other.
                turn = repeat % max(1, len(rising))
                for worker in rising[turn:] + rising[:turn]:
                    measured[worker.name].repeat(options)
            for worker in rising:
                for row in measured[worker.name].rows(options):
                    lines.add(row)
                recalls[worker.name].append(row["recall10"])
            rising = [w for w in rising if goes_on(recalls[w.name], options.stop)]


def efforts(worker, options):
    return worker.ready.get("efforts") or options.ef


def goes_on(recalls, stop):
    stalls = len(recalls) > 3 and recalls[-1] - recalls[-3] < GAIN_MIN
    return recalls[-1] < stop and not stalls


class Step:
    """One worker at one effort."""

    def __init__(self, worker, modality, ef):
        self.worker, self.modality, self.ef = worker, modality, ef
        self.latencies, self.batches = [], {}

    def ask(self, verb, *words):
        time.sleep(PAUSE_SECONDS)
        return self.worker.ask(verb, self.modality, *words)

    def repeat(self, options):
        # A scan's single queries are slow and all alike.
        singles = options.singles if self.ef else min(options.singles, 100)
        self.latencies.append(self.ask("singles", self.ef, singles))
        for threads in options.threads:
            self.batches.setdefault(threads, []).append(self.ask("batch", self.ef, threads))

    def rows(self, options):
        recall100 = None
        if options.recall100 and (self.ef >= RECALL100_EF or not self.ef):
            recall100 = self.ask("recall100", self.ef)["recall100"]
        built = {key: value for key, value in self.worker.ready.items() if key != "efforts"}
        for threads, batches in self.batches.items():
            rates = [b["qps"] for b in batches]
            yield {
                **built, "modality": self.modality, "ef": self.ef, "threads": threads,
                "recall10": batches[0]["recall10"], "recall100": recall100,
                "qps": median(rates), "qps_min": min(rates), "qps_max": max(rates),
                "qps_cpu": median(b["qps_cpu"] for b in batches),
                "p50_us": median(x["p50_us"] for x in self.latencies),
                "p99_us": median(x["p99_us"] for x in self.latencies),
            }


def median(values):
    return round(statistics.median(values), 1)


def run_filtered(worker, options, lines):
    """Sweeps of image queries under filters, on one thread; adds a line per share and ef."""
    count = min(FILTER_QUERIES, options.singles, options.queries or FILTER_QUERIES)
    for share in SHARES:
        for ef in options.ef:
            found = worker.ask("filtered", "image", share, ef, count)
            if "unavailable" in found:
                return
            lines.add({"peer": worker.name, "n": worker.ready["n"], "filter": share, "modality": "image",
                       "ef": ef, "threads": 1, **found})
            if found["recall10"] >= FILTER_STOP:
                break
