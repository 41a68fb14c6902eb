"""`make bench-encode`: encoder throughput of Diptych, ONNX Runtime and candle-transformers.

Owns: the order of measurement and the statistics. Each peer is a process that loads the same random
CLIP ViT-B/32 once and then waits; slices of work go round the peers one at a time, so that what else
the machine does meets all of them alike, and the ratio is taken within each round. Three repeats;
medians. Before anything is timed all peers must give the same embeddings. Does not own the model,
the export, the environment (prepare.py), the counting of products (products.py) or the tables
(report.py).
"""

import argparse
import collections
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import machine
import prepare
import products
import report
import side_by_side
from side_by_side import ROOT, fail, say

IMAGE_CASES = [("image", 1), ("image", 8), ("image", 32)]
TEXT_CASES = [("text", batch, tokens, tokens) for batch, tokens in ((1, 8), (1, 16), (1, 77), (8, 16), (8, 77))]
CONTEXT = 77
GEMM = ("gemm", 1, 2048, 2048, 2048, 1)
PEERS = ("ours", "onnxruntime", "candle")
# Ours with 8-bit transformer blocks: another model, so that it is not among those that must agree.
EIGHT = "ours int8"
# Unit vectors of any two peers differ by less than this, component by component.
TOLERANCE = 1e-4
# ONNX Runtime's threads spin for a moment after each call; they must not take time from the next peer.
PAUSE_SECONDS = 0.05
PROFILE_ROUNDS = 5


class Worker(side_by_side.Worker):
    """One peer that loads the benchmark's model once."""

    def __init__(self, name, command, threads):
        super().__init__(name, command, {"RAYON_NUM_THREADS": str(threads)})

    def seconds(self, case, warm, count):
        time.sleep(PAUSE_SECONDS)
        return self.ask("seconds", warm, count, *case)["seconds"] / count


def check_agreement(workers):
    """Largest difference between the unit vectors of two peers, over every kind of case."""
    worst = 0.0
    for case in [*IMAGE_CASES[:2], *TEXT_CASES, ("text", 8, 16, CONTEXT)]:
        reference = None
        for name in PEERS:
            rows = [unit(row) for row in workers[name].ask("vectors", *case)["vectors"]]
            reference = reference or rows
            if len(rows) != case[1] or [len(r) for r in rows] != [len(r) for r in reference]:
                fail(f"{name} gives another number of values than {PEERS[0]} for {case}")
            difference = max(abs(a - b) for x, y in zip(reference, rows) for a, b in zip(x, y))
            if not difference <= TOLERANCE:
                fail(f"{name} and {PEERS[0]} differ by {difference:.1e} on {case}, so a ratio of "
                     "their speeds would say nothing")
            worst = max(worst, difference)
    return worst


def cosine_of_eight(workers):
    """The lowest cosine between our embeddings in 8 bits and in full precision."""
    lowest = 1.0
    for case in [IMAGE_CASES[1], *TEXT_CASES]:
        pairs = zip(*(workers[name].ask("vectors", *case)["vectors"] for name in ("ours", EIGHT)))
        lowest = min([lowest, *(sum(a * b for a, b in zip(unit(x), unit(y))) for x, y in pairs)])
    return lowest


def unit(row):
    length = math.sqrt(sum(v * v for v in row))
    return [v / length for v in row]


def contestants(case):
    """Who computes what in one round of a case: a list of (label, peer, case)."""
    entries = [(name, name, case) for name in (*PEERS, EIGHT)]
    if case[0] == "image":
        entries += [(f"gemm {name}", name, GEMM) for name in PEERS[:2]]
    elif case[1] == 1 and case[2] < CONTEXT:
        entries.append(("onnxruntime padded", "onnxruntime", (*case[:3], CONTEXT)))
    return entries


class Slices:
    """Seconds per call of every contestant: [case][label][repeat] -> list, round by round."""

    def __init__(self, workers, arguments):
        self.workers, self.arguments, self.counts = workers, arguments, {}
        self.times = collections.defaultdict(lambda: collections.defaultdict(list))

    def calibrate(self, case):
        for label, peer, work in contestants(case):
            once = min(self.workers[peer].seconds(work, 1 - i, 1) for i in range(2))
            count = max(1, round(self.arguments.slice_seconds / once))
            self.counts[case, label] = (1 if count > 1 else 0, count)

    def repeat(self, case):
        entries = contestants(case)
        rounds = collections.defaultdict(list)
        for i in range(self.arguments.slices):
            # Everyone goes first once, so that no peer always follows the same other.
            for label, peer, work in entries[i % len(entries):] + entries[: i % len(entries)]:
                rounds[label].append(self.workers[peer].seconds(work, *self.counts[case, label]))
        for label, seconds in rounds.items():
            self.times[case][label].append(seconds)

    def median(self, case, label):
        return statistics.median(s for repeat in self.times[case][label] for s in repeat)

    def ratio(self, case, peer, to="ours"):
        """How many times faster `to` is than `peer`: the median over the repeats of the median of each
        repeat's rounds, the smallest and the largest repeat, and the ratio of both peers' fastest slices,
        which other work on the machine touches least."""
        repeats = [
            statistics.median(b / a for a, b in zip(mine, theirs))
            for mine, theirs in zip(self.times[case][to], self.times[case][peer])
        ]
        best = self.fastest(case, peer) / self.fastest(case, to)
        return {"median": statistics.median(repeats), "low": min(repeats), "high": max(repeats), "best": best}

    def fastest(self, case, label):
        return min(s for repeat in self.times[case][label] for s in repeat)


def measure(workers, arguments):
    slices, cases = Slices(workers, arguments), IMAGE_CASES + TEXT_CASES
    for case in cases:
        slices.calibrate(case)
    for i in range(arguments.repeats):
        for case in cases:
            say(f"repeat {i + 1} of {arguments.repeats}, {report.title(case)}")
            slices.repeat(case)
    return slices


def summary(slices, config):
    results = []
    for case in IMAGE_CASES + TEXT_CASES:
        entry = {"case": case, "seconds": {}, "ratio": {}}
        for label in slices.times[case]:
            entry["seconds"][label] = slices.median(case, label)
            if label in PEERS[1:] or label.endswith("padded"):
                entry["ratio"][label] = slices.ratio(case, label)
        all_flops = products.flops(products.of_case(config, case))
        entry["gflop"] = all_flops / 1e9
        entry["gflop_needed"] = products.flops(products.of_case(config, case, pooled_only=True)) / 1e9
        if case[0] == "image":
            # Share of the rate of a large product, within each round as well.
            size = products.flops([products.Product("", 1, *GEMM[1:5])])
            entry["share"] = {
                label: {k: v * all_flops / size for k, v in slices.ratio(case, label).items()}
                for label in slices.times[case] if label.startswith("gemm")
            }
        entry["int8"] = {
            label: slices.ratio(case, label, to=EIGHT)
            for label in slices.times[case] if label in ("ours", "onnxruntime", "onnxruntime padded")
        }
        entry["slices"] = slices.times[case]
        results.append(entry)
    return results


def peaks(commands, threads):
    """Peak resident memory in MB of a fresh process that loads and embeds 32 images twice."""
    found = {}
    for name, command in commands.items():
        worker = Worker(name, command, threads)
        try:
            worker.seconds(("image", 32), 0, 2)
            found[name] = worker.ask("peak")["peak_kib"] * 1024 / 1e6
        finally:
            worker.stop()
    return found


def profile(worker, config):
    """Where a forward pass of ours goes: each of its products alone, and what they leave over. Whole
    and parts take turns; of each the fastest counts."""
    tables = []
    for case in (("image", 8), ("image", 32), ("text", 1, 8, 8), ("text", 1, 77, 77), ("text", 8, 77, 77)):
        parts = products.of_case(config, case, pooled_only=True)
        whole, alone = math.inf, [math.inf] * len(parts)
        for _ in range(PROFILE_ROUNDS):
            whole = min(whole, worker.seconds(case, 1, 1))
            for i, p in enumerate(parts):
                work = ("gemm", p.batch, p.m, p.k, p.n, p.count)
                alone[i] = min(alone[i], worker.seconds(work, p.count, p.count) * p.count)
        rows = [(p, products.flops([p]) / 1e9, seconds) for p, seconds in zip(parts, alone)]
        tables.append(report.profile_table(case, whole, rows))
    return "\n".join(tables)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "target" / "bench-encode",
                        help="environment, model and export are kept here (1.5 GB)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slices", type=int, default=5, help="rounds in each repeat")
    parser.add_argument("--slice-seconds", type=float, default=0.4, help="what a slice aims at")
    parser.add_argument("--threads", type=int, default=side_by_side.available_cores())
    parser.add_argument("--profile", action="store_true", help="only print where our time goes")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "RESULTS.md")
    return parser.parse_args()


def main():
    arguments = parse()
    cache = arguments.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    binary = prepare.rust_worker()
    interpreter = prepare.python(cache)
    model, towers = prepare.model(interpreter, cache)
    config = json.loads((model / "config.json").read_text())
    commands = {
        "ours": [binary, "ours", model],
        "onnxruntime": [interpreter, prepare.HERE / "ort_worker.py", model, towers, arguments.threads],
        "candle": [binary, "candle", model],
        EIGHT: [binary, "ours-int8", model],
    }
    if arguments.profile:
        commands = {"ours": commands["ours"]}
    workers = {}
    try:
        for name, command in commands.items():
            workers[name] = Worker(name, command, arguments.threads)
        if arguments.profile:
            print(profile(workers["ours"], config))
            return
        facts = report.facts(arguments, workers["onnxruntime"].ready["version"])
        facts["difference"] = check_agreement(workers)
        facts["int8_cosine"] = cosine_of_eight(workers)
        others = machine.Others([worker.process.pid for worker in workers.values()])
        slices = measure(workers, arguments)
        facts["others"] = others.share()
    finally:
        for worker in workers.values():
            worker.stop()
    facts["weights_mb"] = (model / "model.safetensors").stat().st_size / 1e6
    facts["peak_mb"] = peaks(commands, arguments.threads)
    results = {"facts": facts, "cases": summary(slices, config)}
    (cache / "results.json").write_text(json.dumps(results, indent=1))
    text = report.markdown(results)
    print(text)
    side_by_side.write_section(arguments.results, text)
    say(f"wrote {arguments.results} and {cache / 'results.json'}")


if __name__ == "__main__":
    main()
