"""Other libraries on the folder that the benchmark's generator makes.

    python peers.py DIR --peers hnswlib,faiss-hnsw --threads 1,2 --json FILE

Owns: how each peer is built and searched, each in a process of its own so that its memory can be told
apart. A worker (--worker PEER) builds, says what that cost, and answers the requests of `main.rs`
beside this file, and `filtered MODALITY SHARE EF COUNT` where the library takes a filter; `inserts`
as peer measures inserts per second of hnswlib. Does not own the order of measurement (sweep.py) or
tables (report.py).

All score by inner products of unit vectors. What would make a comparison unfair:
- usearch's own cast to 8 bits multiplies by 127 and truncates, which leaves components of vectors of
  512 dimensions some 3 bits: they are scaled to the range of their largest and rounded here;
- its 8-bit inner product depends on that scale, its cosine does not;
- memory is what the process grew by, after freed memory went back to the system, and without the
  library's own code and the base;
- worker threads spin for a moment after a call, so peers must not be measured back to back.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import time
from pathlib import Path

K, K_LONG = 10, 100
WARM = 32
MODALITIES = ("text", "image")
PEERS = ("hnswlib", "faiss-hnsw", "faiss-hnsw-sq8", "usearch-f32", "usearch-i8", "exact")
# Vectors handed over at once where the library makes a copy of them.
PART = 50_000
# Points of the measurement of inserts; must agree with inserts.rs.
INSERT_POINTS = 100_000


class Peer:
    """A library's index, built by its constructor. `params` tells how; `search(queries, k, ef, threads)`
    returns ids [query, k], best first. `efforts` is None where any ef may be asked for."""

    efforts = None
    can_filter = False


class Hnswlib(Peer):
    can_filter = True

    def __init__(self, base, options, threads, capacity=None):
        import hnswlib
        self.params = {"M": options.m, "efc": options.efc}
        self.index = hnswlib.Index(space="ip", dim=base.shape[1])
        self.index.init_index(capacity or len(base), M=options.m, ef_construction=options.efc)
        self.index.add_items(base, num_threads=threads)

    def search(self, queries, k, ef, threads):
        self.index.set_ef(max(ef, k))
        return self.index.knn_query(queries, k=k, num_threads=threads)[0]

    def search_filtered(self, query, k, ef, allows):
        """On one thread: the filter is Python's. Fewer than k ids where the graph yields no more."""
        self.index.set_ef(max(ef, k))
        try:
            return self.index.knn_query(query, k=k, num_threads=1, filter=allows)[0][0]
        except RuntimeError:
            return []


class Faiss(Peer):
    def __init__(self, base, options, threads):
        import faiss
        self.threads = faiss.omp_set_num_threads
        self.threads(threads)
        self.index = self.make(faiss, base, options)
        self.index.add(base)

    def search(self, queries, k, ef, threads):
        self.threads(threads)
        self.effort(max(ef, k))
        return self.index.search(queries, k)[1]

    def effort(self, ef):
        self.index.hnsw.efSearch = ef


class FaissHnsw(Faiss):
    def make(self, faiss, base, options):
        self.params = {"M": options.m, "efc": options.efc}
        index = faiss.IndexHNSWFlat(base.shape[1], options.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.efc
        return index


class FaissHnswSq8(Faiss):
    def make(self, faiss, base, options):
        self.params = {"M": options.m, "efc": options.efc, "codes": "8 bits"}
        index = faiss.IndexHNSWSQ(
            base.shape[1], faiss.ScalarQuantizer.QT_8bit, options.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.efc
        index.train(base)
        return index


class Exact(Faiss):
    efforts = [0]
    params = {}

    def make(self, faiss, base, options):
        return faiss.IndexFlatIP(base.shape[1])

    def effort(self, ef):
        pass


class Usearch(Peer):
    kind = {"metric": "ip", "dtype": "f32"}

    def __init__(self, base, options, threads):
        import numpy as np
        from usearch.index import Index
        self.params = {"M": options.m, "efc": options.efc, "dtype": self.kind["dtype"]}
        self.index = Index(
            ndim=base.shape[1], connectivity=options.m, expansion_add=options.efc, **self.kind)
        self.prepare(base)
        for start in range(0, len(base), PART):
            part = self.cast(base[start : start + PART])
            self.index.add(np.arange(start, start + len(part)), part, threads=threads)

    def prepare(self, base):
        pass

    def cast(self, rows):
        return rows

    def search(self, queries, k, ef, threads):
        self.index.expansion_search = max(ef, k)
        queries = self.cast(queries)
        # One query as a row of its own would go the way of batches.
        found = self.index.search(queries[0] if len(queries) == 1 else queries, k, threads=threads)
        return found.keys.reshape(len(queries), -1)


class UsearchEight(Usearch):
    kind = {"metric": "cos", "dtype": "i8"}

    def prepare(self, base):
        import numpy as np
        largest = max(float(np.abs(base[i : i + PART]).max()) for i in range(0, len(base), PART))
        self.scale = np.float32(127 / largest)

    def cast(self, rows):
        import numpy as np
        return np.clip(np.rint(rows * self.scale), -127, 127).astype(np.int8)


CLASSES = dict(zip(PEERS, (Hnswlib, FaissHnsw, FaissHnswSq8, Usearch, UsearchEight, Exact)))


class Folder:
    """The files that dataset.rs writes."""

    def __init__(self, path):
        self.path = Path(path)
        self.meta = json.loads((self.path / "meta.json").read_text())

    def matrix(self, name, kind, columns):
        import numpy as np
        return np.fromfile(self.path / name, dtype=kind).reshape(-1, columns)

    def base(self):
        return self.matrix("base.f32", "<f4", self.meta["dim"])

    def queries(self, modality):
        return self.matrix(f"query_{modality}.f32", "<f4", self.meta["dim"])

    def truth(self, modality):
        return self.matrix(f"gt_{modality}.i32", "<i4", self.meta["k"])


class Served:
    """A built peer that answers requests."""

    def __init__(self, name, options):
        self.folder = Folder(options.folder)
        self.queries = {m: self.folder.queries(m)[: options.queries] for m in MODALITIES}
        self.truth = {m: self.folder.truth(m)[: options.queries] for m in MODALITIES}
        self.masks = {}
        base = self.folder.base()
        import_library(name)
        before, start, cpu = resident_bytes(), time.perf_counter(), time.process_time()
        self.peer = CLASSES[name](base, options, options.build_threads)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        grown = resident_bytes() - before
        self.built = {
            "peer": name, "params": self.peer.params, "build_s": round(seconds, 2), "build_cpu_s": round(cpu, 2),
            "build_threads": options.build_threads, "rss_bytes": grown,
            "bytes_per_vector": round(grown / len(base), 1), "n": len(base),
        }

    def batch(self, modality, ef, threads):
        queries = self.queries[modality]
        start, cpu = time.perf_counter(), time.process_time()
        found = self.peer.search(queries, K, int(ef), int(threads))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {
            "recall10": round(recall(found, self.truth[modality], K), 4),
            "qps": round(len(queries) / seconds, 1), "qps_cpu": round(len(queries) / max(cpu, 1e-9), 1),
        }

    def singles(self, modality, ef, count):
        import numpy as np
        queries = self.queries[modality][: int(count)]
        self.peer.search(queries[:WARM], K, int(ef), 1)
        times = []
        for i in range(len(queries)):
            query = queries[i : i + 1]
            start = time.perf_counter()
            self.peer.search(query, K, int(ef), 1)
            times.append((time.perf_counter() - start) * 1e6)
        p50, p99 = np.percentile(times, (50, 99))
        return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}

    def recall100(self, modality, ef):
        if self.folder.meta["k"] < K_LONG:
            return {"recall100": None}
        found = self.peer.search(self.queries[modality], K_LONG, int(ef), os.cpu_count())
        return {"recall100": round(recall(found, self.truth[modality], K_LONG), 4)}

    def filtered(self, modality, share, ef, count):
        """Queries per second on one thread where a share of the base may be found."""
        if not self.peer.can_filter:
            return {"unavailable": "no filter"}
        queries = self.queries[modality][: int(count)]
        allowed, truth = self.filter(modality, float(share), len(queries))
        allows = allowed.tolist().__getitem__
        start, cpu = time.perf_counter(), time.process_time()
        found = [self.peer.search_filtered(q, truth.shape[1], int(ef), allows) for q in queries]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        hits = sum(len(set(a) & set(b)) for a, b in zip(map(list, found), truth.tolist()))
        return {
            "recall10": round(hits / max(truth.size, 1), 4),
            "qps": round(len(queries) / seconds, 1), "qps_cpu": round(len(queries) / max(cpu, 1e-9), 1),
        }

    def filter(self, modality, share, count):
        """Which ids may be found, and the true neighbours among them."""
        import numpy as np
        key = (modality, share, count)
        if key not in self.masks:
            allowed = attribute(self.built["n"]) < share
            ids = np.flatnonzero(allowed)
            base = np.memmap(self.folder.path / "base.f32", "<f4", "r", shape=(len(allowed), self.folder.meta["dim"]))
            scores = self.queries[modality][:count] @ base[ids].T
            self.masks[key] = allowed, ids[np.argsort(-scores, axis=1, kind="stable")[:, :K]]
        return self.masks[key]


def attribute(n):
    """A number in [0, 1) for every id, by the mixing of splitmix64: below s for a share s of them."""
    import numpy as np
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) / 2.0**64


def recall(found, truth, k):
    hits = sum(len(set(a) & set(b)) for a, b in zip(found[:, :k].tolist(), truth[:, :k].tolist()))
    return hits / (k * len(found))


def import_library(name):
    """Its code and tables are no part of the index."""
    __import__({"exact": "faiss", "usearch": "usearch.index"}.get(name.partition("-")[0], name.partition("-")[0]))


def resident_bytes():
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass  # Another C library; it keeps what it keeps.
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def inserts(options):
    """Points per second that hnswlib takes up with no searches beside, into four fifths of them."""
    base = Folder(options.folder).base()[:INSERT_POINTS]
    before = len(base) // 5 * 4
    peer = Hnswlib(base[:before], options, options.build_threads, capacity=len(base))
    start = time.perf_counter()
    peer.index.add_items(base[before:], num_threads=options.build_threads)
    return {
        "peer": "hnswlib", "params": peer.params, "n": len(base), "threads": options.build_threads,
        "inserts_alone": round((len(base) - before) / (time.perf_counter() - start), 1),
    }


def serve(name, options):
    served = Served(name, options)
    answers = {f.__name__: f for f in
               (served.batch, served.singles, served.recall100, served.filtered)}
    print(json.dumps({**served.built, "efforts": served.peer.efforts}), flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        reply = answers[verb](*words) if verb in answers else {"error": f"cannot answer {line.strip()!r}"}
        print(json.dumps(reply), flush=True)


def command(interpreter, name, options):
    """The command of a worker with these options, and its environment."""
    words = [interpreter, "-B", Path(__file__).resolve(), options.folder, "--worker", name, "--m", options.m,
             "--efc", options.efc, "--build-threads", options.build_threads]
    if options.queries:
        words += ["--queries", options.queries]
    threads = str(max(options.build_threads, *options.threads))
    return words, {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import sweep
    from side_by_side import Worker, fail
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    sweep.add_options(parser)
    options = sweep.parse(parser)
    if options.worker:
        return print(json.dumps(inserts(options))) if options.worker == "inserts" else serve(options.worker, options)
    with sweep.Lines(options.json) as lines:
        for name in options.peers.split(","):
            if name not in PEERS:
                fail(f"no peer {name!r}; there are {', '.join(PEERS)}")
            worker = Worker(name, *command(sys.executable, name, options))
            try:
                sweep.run([worker], options, lines)
            finally:
                worker.stop()


if __name__ == "__main__":
    main()
