"""`make bench-ann`: Diptych's index beside hnswlib, faiss and usearch.

Owns: the course of a run. Data sets are made by our generator where they are missing; each engine is
built alone in a process of its own; then all wait, and are measured in turn (sweep.py); hnswlib's
filter and inserts follow. Does not own the engines (main.rs, peers.py) or the tables (report.py).
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import machine
import peers
import report
import sweep
from side_by_side import ROOT, Worker, fail, output, python, rust_bench, say, write_section

PACKAGES = ("hnswlib", "faiss-cpu", "usearch")
MODULES = ("hnswlib", "faiss", "usearch.index", "numpy")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "target" / "bench-ann",
                        help="environment, data sets and results are kept here")
    parser.add_argument("--n", type=sweep.numbers, default=[100_000], help="sizes of the base, such as 100000,1000000")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--data", type=Path, action="append", help="a folder to measure on instead; may be repeated")
    parser.add_argument("--peers", default=",".join(peers.PEERS))
    parser.add_argument("--python", type=Path, help="an interpreter that has the peers already")
    parser.add_argument("--no-extras", action="store_true", help="leave out filters and inserts")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "RESULTS.md")
    sweep.add_options(parser)
    parser.set_defaults(threads=[1, 2])
    options = sweep.parse(parser)
    options.peers = options.peers.split(",") if options.peers else []
    unknown = [name for name in options.peers if name not in peers.PEERS]
    if unknown:
        fail(f"no peer {unknown[0]!r}; there are {', '.join(peers.PEERS)}")
    return options


def data_set(binary, cache, n, dim):
    """The folder of a set, made if it is not there."""
    folder = cache / f"cliplike-{n}x{dim}"
    if not (folder / "meta.json").exists():
        say(f"making {n} x {dim} vectors in {folder} ({n * dim * 4 / 1e9:.1f} GB)")
        command = [binary, "--generate", "--n", str(n), "--dim", str(dim), "--data", folder]
        if subprocess.run(command).returncode != 0:
            fail("the generator failed; its message is above")
    return folder


def our_command(binary, options, *words):
    command = [binary, "--data", options.folder, "--m", options.m, "--efc", options.efc,
               "--build-threads", options.build_threads, *words]
    return [*command, "--queries", options.queries] if options.queries else command


def start(binary, interpreter, options):
    """All engines, built one after the other."""
    workers = []
    try:
        for name in [*report.OURS, *options.peers]:
            if name in report.OURS:
                worker = Worker(name, our_command(binary, options, "--worker", name), {})
            else:
                worker = Worker(name, *peers.command(interpreter, name, options))
            workers.append(worker)
            if "unavailable" in worker.ready:
                say(f"{name} is left out: {worker.ready['unavailable']}")
                workers.pop().stop()
                continue
            ready = worker.ready
            say(f"{name}: {ready['n']} vectors built in {ready['build_s']} s ({ready['build_cpu_s']} s of CPU), "
                f"{ready['bytes_per_vector']} bytes per vector")
    except BaseException:
        stop(workers)
        raise
    return workers


def stop(workers):
    for worker in workers:
        worker.stop()


def inserts(binary, interpreter, options, lines):
    """One rate each, each alone on the machine."""
    for command, environment in (
        peers.command(interpreter, "inserts", options),
        (our_command(binary, options, "--inserts"), {}),
    ):
        worker = Worker("inserts", command, environment)
        lines.add(worker.ready)
        worker.stop()


def measure(binary, interpreter, options, lines, extras):
    """One data set; returns the share of the processor that other programs took."""
    workers = start(binary, interpreter, options)
    try:
        others = machine.Others([worker.process.pid for worker in workers])
        sweep.run(workers, options, lines)
        share = others.share()
        if not options.no_extras:
            for worker in workers:
                sweep.run_filtered(worker, options, extras)
    finally:
        stop(workers)
    return share


def brief(row):
    """A line to follow a run by."""
    keys = ("n", "filter", "modality", "ef", "threads", "recall10", "qps", "qps_cpu", "p99_us",
            "inserts_alone", "inserts_searching")
    return f"{row['peer']:15} " + ", ".join(f"{key} {row[key]}" for key in keys if key in row)


def versions(interpreter):
    code = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {PACKAGES!r}}}))"
    return json.loads(output(interpreter, "-c", code))


def main():
    options = parse()
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    binary = rust_bench("ann", "--workspace")
    interpreter = options.python or python(cache, HERE / "requirements.txt", MODULES)
    folders = options.data or [data_set(binary, cache, n, options.dim) for n in sorted(options.n)]
    shares = []
    lines, extras = (sweep.Lines(cache / f"{name}.jsonl", brief) for name in ("results", "extras"))
    with lines, extras:
        for folder in folders:
            options.folder = folder.resolve()
            shares.append(measure(binary, interpreter, options, lines, extras))
        if not options.no_extras:
            inserts(binary, interpreter, options, extras)
    dim = json.loads((folders[0] / "meta.json").read_text())["dim"]
    known = [share for share in shares if share is not None]
    facts = report.facts(options.repeats, dim, versions(interpreter), max(known, default=None))
    (cache / "facts.json").write_text(json.dumps(facts, indent=1))
    text = report.markdown(facts, lines.rows, extras.rows)
    print(text)
    write_section(options.results, text)
    say(f"wrote {options.results}, and JSON lines into {cache}")


if __name__ == "__main__":
    main()
