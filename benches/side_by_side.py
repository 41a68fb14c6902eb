"""What every benchmark beside other libraries needs.

Owns: a Python environment with the peers, executables of Rust benches, processes that measure when
asked to, and the sections of a results file. Does not own what is measured, nor facts about the
machine (machine.py). Uses nothing outside Python's standard library. Scripts in the folders beside
this file put this folder on their path.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The Makefile's name of the running benchmark: bench- and the folder of its script.
PROGRAM = f"bench-{Path(sys.argv[0]).resolve().parent.name}"


def fail(message):
    raise SystemExit(f"{PROGRAM}: {message}")


def say(message):
    print(f"{PROGRAM}: {message}", flush=True)


def python(cache, packages, modules):
    """The interpreter that can import the modules; the packages are installed into the cache if need be."""
    venv = cache / "venv"
    interpreter = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def ready():
        return interpreter.exists() and quiet([interpreter, "-c", f"import {', '.join(modules)}"])

    if ready():
        return interpreter
    say(f"installing {packages.relative_to(ROOT)} into {venv}")
    makers = ([sys.executable, "-m", "venv", "--clear"], [sys.executable, "-m", "virtualenv", "--clear"])
    if not any(quiet([*maker, venv]) for maker in makers):
        fail(f"{sys.executable} can make no virtual environment; install python3-venv (Debian, Ubuntu) "
             "or virtualenv")
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", packages]
    if subprocess.run(pip).returncode != 0 or not ready():
        fail(f"pip could not install {packages.relative_to(ROOT)}; the first run needs PyPI or a mirror "
             "(PIP_INDEX_URL), later runs need no network")
    return interpreter


def quiet(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def rust_bench(bench, *packages):
    """Builds a bench of the packages that cargo's options name and returns its executable."""
    cargo = shutil.which("cargo") or fail("cargo is missing; install Rust from https://rustup.rs")
    command = [cargo, "build", "--release", *packages, "--bench", bench,
               "--message-format", "json-render-diagnostics"]
    build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if build.returncode != 0:
        fail(f"the bench '{bench}' does not build; cargo's message is above")
    messages = map(json.loads, build.stdout.splitlines())
    found = [m["executable"] for m in messages
             if m.get("executable") and m["target"]["name"] == bench and "bench" in m["target"]["kind"]]
    return Path(found[-1]) if found else fail(f"cargo named no executable for the bench '{bench}'")


class Worker:
    """A peer in a process of its own, which computes only while a request is open. It says first that
    it is ready, and then answers a line of words with a line of JSON."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **environment})
        self.ready = self.reply()

    def ask(self, *words):
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The missing reply says it.
        return self.reply()

    def reply(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the process ended; its message is above"}
        if "error" in answer:
            fail(f"worker {self.name}: {answer['error']}")
        return answer

    def stop(self):
        self.process.kill()
        self.process.wait()


def output(*command):
    """What a command prints; "unknown" where it cannot be run."""
    try:
        found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return "unknown"
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def commit():
    """The commit that is measured, and whether files differ from it."""
    dirty = output("git", "status", "--porcelain", "--untracked-files=no", ":!benches/RESULTS.md")
    return output("git", "rev-parse", "--short", "HEAD") + (" with local changes" if dirty else "")


def available_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write_section(path, text):
    """Replaces the running benchmark's section of a results file, or adds it."""
    begin, end = f"<!-- {PROGRAM}: begin -->", f"<!-- {PROGRAM}: end -->"
    section = f"{begin}\n{text}\n{end}"
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    if begin in old and end in old:
        new = old[: old.index(begin)] + section + old[old.index(end) + len(end):]
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    path.write_text(new, encoding="utf-8")
