"""The tables of the index benchmark.

Owns: figures at a recall, read between measured points; the goals; the Markdown text. Does not own
any measurement.
"""

import collections
import datetime
import math

import machine
from side_by_side import commit, output

RECALLS = (0.90, 0.95, 0.99)
MODALITIES = ("text", "image")
OURS = ("diptych", "diptych-queries")
EXACT = "exact"
HNSWLIB = "hnswlib"
# Least ratio to the best peer (text queries: to the best graph), at these recalls.
QPS_GOALS = {"text": 3.0, "image": 1.5}
QPS_RECALLS = (0.95, 0.99)
# Most of hnswlib's.
BUILD_GOAL, BYTES_GOAL = 0.8, 0.4
# Most of the best peer's.
P99_GOAL = 0.7
# Least of hnswlib's.
INSERTS_GOAL, FILTER_GOAL, GROWTH_GOAL = 1.0, 5.0, 1.0
FILTER_SHARE, GOAL_RECALL = 0.01, 0.95

# A figure at a recall; `bound` if even the least effort measured reached more.
At = collections.namedtuple("At", "value bound")


def at_recall(rows, target, key):
    """Log-linear between the two neighbouring efforts that enclose the recall; None if out of reach."""
    points = [(row["recall10"], row[key]) for row in sorted(rows, key=lambda row: row["ef"])]
    if points and points[0][0] >= target:
        # A scan has one effort only, so there is nothing cheaper.
        return At(points[0][1], bool(rows[0]["ef"]))
    for (low, before), (high, after) in zip(points, points[1:]):
        if low < target <= high:
            share = (target - low) / (high - low)
            return At(math.exp((1 - share) * math.log(before) + share * math.log(after)), False)
    return None


class Results:
    """The lines of one data set."""

    def __init__(self, n, rows, extras):
        self.n = n
        self.rows = [row for row in rows if row["n"] == n]
        self.extras = [row for row in extras if row["n"] == n or "inserts_alone" in row]
        self.peers = list(dict.fromkeys(row["peer"] for row in self.rows))
        self.ours = [peer for peer in OURS if peer in self.peers]
        self.others = [peer for peer in self.peers if peer not in OURS]
        self.graphs = [peer for peer in self.others if peer != EXACT]
        counts = sorted({row["threads"] for row in self.rows})
        # How queries per second are counted: title, rows of which thread count, field.
        self.ways = [(f"{t} thread{'s' * (t > 1)}", t, "qps") for t in counts]
        self.ways.append(("per CPU second", counts[0], "qps_cpu"))

    def sweep(self, peer, modality, threads):
        return [r for r in self.rows
                if (r["peer"], r["modality"], r["threads"]) == (peer, modality, threads)]

    def speed(self, peer, modality, way, recall):
        return at_recall(self.sweep(peer, modality, way[1]), recall, way[2])

    def latency(self, peer, modality, key):
        return at_recall(self.sweep(peer, modality, self.ways[0][1]), GOAL_RECALL, key)

    def cost(self, peer, key):
        return next((row[key] for row in self.rows if row["peer"] == peer), None)

    def filtered(self, peer, share):
        rows = [r for r in self.extras if r.get("filter") == share and r["peer"] == peer]
        return at_recall(rows, GOAL_RECALL, "qps") if rows else None

    def inserts(self, peer, key):
        return next((row[key] for row in self.extras if row["peer"] == peer and key in row), None)


def markdown(facts, rows, extras):
    sizes = [Results(n, rows, extras) for n in sorted({row["n"] for row in rows})]
    built = rows[0]["build_threads"]
    parts = [
        "## Index: Diptych, hnswlib, faiss, usearch",
        "",
        f"{facts['machine']}. Commit {facts['commit']}, {facts['date']}. hnswlib {facts['hnswlib']}, faiss "
        f"{facts['faiss-cpu']}, usearch {facts['usearch']}, {facts['rustc']}. CLIP-like vectors of the benchmark's "
        f"own generator, {facts['dim']} dimensions, k = 10, built on {built} threads. "
        f"{machine.disturbance(facts['others'])}",
        "",
        "Queries per second at a recall@10, log-linear between measured `ef`; `>`: the smallest `ef` reached "
        "more. One run, all engines in turn at each `ef`, medians of "
        f"{facts['repeats']} repeats. The peers are called from Python, which costs a single query some "
        "microseconds. Text queries are out of distribution for the images they search.",
    ]
    for results in sizes:
        parts += ["", f"### {results.n:,} vectors", "", *speed_table(results), "", *latency_table(results)]
        parts += ["", *goal_table(results, facts["others"])]
        if results.extras:
            parts += ["", *extra_tables(results)]
    if len(sizes) > 1:
        parts += ["", *growth_table(sizes[0], sizes[-1])]
    return "\n".join(parts)


def facts(repeats, dim, versions, others):
    return {
        "date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine.describe(),
        "rustc": output("rustc", "--version"), "repeats": repeats, "dim": dim, "others": others, **versions,
    }


def speed_table(results):
    columns = [f"{modality} {recall:.2f}" for modality in MODALITIES for recall in RECALLS]
    yield "| engine | queries per second | build s (CPU s) | bytes/vector | " + " | ".join(columns) + " |"
    yield "|---" * (4 + len(columns)) + "|"
    for way in results.ways:
        for peer in results.peers:
            cells = [peer, way[0], build(results, peer), show(results.cost(peer, "bytes_per_vector"), ".0f")]
            for modality in MODALITIES:
                rows = results.sweep(peer, modality, way[1])
                best = max((row["recall10"] for row in rows), default=0)
                cells += [speed(at_recall(rows, recall, way[2]), best) for recall in RECALLS]
            yield "| " + " | ".join(cells) + " |"


def build(results, peer):
    edges = next((row["edges_cpu_s"] for row in results.rows if row["peer"] == peer and "edges_cpu_s" in row), None)
    more = "" if edges is None else f" + {edges:.0f} for edges"
    return f"{results.cost(peer, 'build_s'):.0f} ({results.cost(peer, 'build_cpu_s'):.0f}{more})"


def speed(found, best):
    return f"- (at most {best:.3f})" if found is None else f"{'>' * found.bound}{found.value:.0f}"


def latency_table(results):
    yield (f"| single queries at recall {GOAL_RECALL:.2f}, us | "
           + " | ".join(f"{m} p50 | {m} p99" for m in MODALITIES) + " |")
    yield "|---" * (1 + 2 * len(MODALITIES)) + "|"
    for peer in results.peers:
        found = [results.latency(peer, m, key) for m in MODALITIES for key in ("p50_us", "p99_us")]
        cells = ["-" if at is None else f"{'<' * at.bound}{at.value:.0f}" for at in found]
        yield f"| {peer} | " + " | ".join(cells) + " |"


def goal_table(results, others):
    """Ratios of ours to the peers, and whether they are what they should be."""
    yield "| ratio | " + " | ".join(results.ours) + " | goal |"
    yield "|---" * (2 + len(results.ours)) + "|"
    for way in results.ways:
        for modality in MODALITIES:
            for recall in QPS_RECALLS:
                peers = results.graphs if modality == "text" else results.others
                best = fastest(results, peers, modality, way, recall)
                title = f"{modality} queries at {recall:.2f}, {way[0]}, to {best[0]}"
                found = [over(results.speed(p, modality, way, recall), best[1]) for p in results.ours]
                yield goal(title, found, QPS_GOALS[modality], others, way[2] == "qps")
        if EXACT in results.peers:
            found = [over_exact(results, peer, way) for peer in results.ours]
            yield goal(f"text queries, least of all recalls, {way[0]}, to exact", found, 1.0, others, way[2] == "qps")
    found = [part(results.cost(p, "build_cpu_s"), results.cost(HNSWLIB, "build_cpu_s")) for p in results.ours]
    yield goal("CPU seconds of the build, to hnswlib", found, -BUILD_GOAL)
    found = [part(results.cost(p, "bytes_per_vector"), results.cost(HNSWLIB, "bytes_per_vector"))
             for p in results.ours]
    yield goal("bytes per vector, to hnswlib", found, -BYTES_GOAL)
    for modality in MODALITIES:
        reached = {p: results.latency(p, modality, "p99_us") for p in results.others}
        best = min(((p, at) for p, at in reached.items() if at), key=lambda e: e[1].value, default=("none", None))
        found = [over(results.latency(p, modality, "p99_us"), best[1], alone=0.0) for p in results.ours]
        yield goal(f"p99 of {modality} queries at {GOAL_RECALL:.2f}, to {best[0]}", found, -P99_GOAL, others, True)
    found = part(results.inserts("diptych", "inserts_searching"), results.inserts(HNSWLIB, "inserts_alone"))
    yield goal("inserts beside searches at half load, to hnswlib alone", [found] * len(results.ours),
               INSERTS_GOAL, others, True, "not measured")
    found = [over(results.filtered(p, FILTER_SHARE), results.filtered(HNSWLIB, FILTER_SHARE)) for p in results.ours]
    yield goal(f"image queries under a filter of {FILTER_SHARE:.0%} at {GOAL_RECALL:.2f}, to hnswlib", found,
               FILTER_GOAL, others, True, "not measured")


def fastest(results, peers, modality, way, recall):
    reached = [(peer, results.speed(peer, modality, way, recall)) for peer in peers]
    return max(((p, at) for p, at in reached if at), key=lambda e: e[1].value, default=("none", None))


def over(mine, theirs, alone=math.inf):
    """The ratio of two figures at a recall; `alone` where only ours gets there."""
    if mine is None:
        return None
    return mine.value / theirs.value if theirs else alone


def part(mine, theirs):
    return mine / theirs if mine and theirs else None


def over_exact(results, peer, way):
    """The least over all recalls; None if ours does not get to one of them."""
    ratios = [over(results.speed(peer, "text", way, recall), results.speed(EXACT, "text", way, recall))
              for recall in RECALLS]
    return None if None in ratios else min(ratios)


def goal(title, ratios, wanted, others=None, by_clock=False, absent="not reached"):
    """A row; a negative goal is the most that may be. What a clock tells on a busy machine is no verdict."""
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        verdict = absent
    elif by_clock and (others or 0) > machine.BUSY:
        verdict = "measure again"
    else:
        met = min(known) <= -wanted if wanted < 0 else max(known) >= wanted
        verdict = "met" if met else "missed"
    cells = ["-" if r is None else "alone" if r in (0, math.inf) else f"{r:.2f}" for r in ratios]
    limit = f"{'at most' if wanted < 0 else 'at least'} {abs(wanted):g}"
    return f"| {title} | " + " | ".join(cells) + f" | {limit}: {verdict} |"


def extra_tables(results):
    shares = sorted({row["filter"] for row in results.extras if "filter" in row}, reverse=True)
    if shares:
        yield (f"| image queries per second under a filter (hnswlib: a Python callback) at recall {GOAL_RECALL:.2f}, 1 thread | "
               + " | ".join(f"{share:.1%}" for share in shares) + " |")
        yield "|---" * (1 + len(shares)) + "|"
        for peer in dict.fromkeys(row["peer"] for row in results.extras if "filter" in row):
            found = [results.filtered(peer, share) for share in shares]
            best = [max(r["recall10"] for r in results.extras if r["peer"] == peer and r.get("filter") == share)
                    for share in shares]
            yield f"| {peer} | " + " | ".join(map(speed, found, best)) + " |"
        yield ""
    rows = [row for row in results.extras if "inserts_alone" in row]
    if rows:
        yield "| inserts into an index of up to 100,000 | inserts/s alone | beside searches | searches/s meanwhile |"
        yield "|---|---|---|---|"
        for row in rows:
            beside = show(row.get("inserts_searching"), ".0f")
            searches = show(row.get("searches_inserting"), ".0f")
            yield f"| {row['peer']}, {row['threads']} threads | {row['inserts_alone']:.0f} | {beside} | {searches} |"


def growth_table(small, large):
    """What is left of the speed when the base grows, ours beside hnswlib's."""
    yield (f"| queries per second at {GOAL_RECALL:.2f}, {large.n:,} to {small.n:,} vectors | "
           + " | ".join(large.ours) + " | hnswlib | goal |")
    yield "|---" * (3 + len(large.ours)) + "|"
    for way in large.ways:
        for modality in MODALITIES:
            kept = [kept_speed(small, large, peer, modality, way) for peer in [*large.ours, HNSWLIB]]
            ratios = [part(mine, kept[-1]) for mine in kept[:-1]]
            known = [ratio for ratio in ratios if ratio is not None]
            verdict = "met" if known and max(known) >= GROWTH_GOAL else "missed" if known else "not reached"
            yield (f"| {modality}, {way[0]} | " + " | ".join(show(k, ".2f") for k in kept)
                   + f" | at least hnswlib's: {verdict} |")


def kept_speed(small, large, peer, modality, way):
    before, after = (results.speed(peer, modality, way, GOAL_RECALL) for results in (small, large))
    return after.value / before.value if before and after else None


def show(value, kind):
    return "-" if value is None else format(value, kind)
