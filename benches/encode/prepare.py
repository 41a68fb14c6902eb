"""What the encoder benchmark needs before it can measure, made once and kept.

Owns: the Python environment of the ONNX Runtime worker, the random model, its ONNX export and the
build of the Rust worker. Everything but the build stays in the cache folder, so only the first run
needs a network. Uses nothing outside Python's standard library.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = HERE / "requirements.txt"


def fail(message):
    raise SystemExit(f"bench-encode: {message}")


def python(cache):
    """The interpreter that has onnxruntime, onnx and numpy, installed into the cache if need be."""
    venv = cache / "venv"
    interpreter = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if has_packages(interpreter):
        return interpreter
    print(f"bench-encode: installing {PACKAGES.relative_to(ROOT)} into {venv}")
    makers = ([sys.executable, "-m", "venv", "--clear"], [sys.executable, "-m", "virtualenv", "--clear"])
    if not any(quiet([*maker, venv]) for maker in makers):
        fail(f"{sys.executable} can make no virtual environment; install python3-venv (Debian, Ubuntu) "
             "or virtualenv")
    pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", PACKAGES]
    if subprocess.run(pip).returncode != 0 or not has_packages(interpreter):
        fail(f"pip could not install {PACKAGES.relative_to(ROOT)}; the first run needs PyPI or a mirror "
             "(PIP_INDEX_URL), later runs need no network")
    return interpreter


def quiet(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def has_packages(interpreter):
    return interpreter.exists() and quiet([interpreter, "-c", "import numpy, onnx, onnxruntime"])


def model(interpreter, cache):
    """The model directory and the folder of its two ONNX graphs."""
    folder, towers = cache / "model", cache / "onnx"
    for script, arguments, output in (
        ("make_model.py", [folder], folder),
        ("export_onnx.py", [folder, towers], towers),
    ):
        # Made anew when a script changes, and when an earlier run was interrupted.
        sources = b"".join((HERE / name).read_bytes() for name in ("make_model.py", script))
        stamp, digest = output / f"{script}.sha256", hashlib.sha256(sources).hexdigest()
        if stamp.exists() and stamp.read_text() == digest:
            continue
        shutil.rmtree(output, ignore_errors=True)
        print(f"bench-encode: {script} writes {output}")
        if subprocess.run([interpreter, HERE / script, *arguments]).returncode != 0:
            fail(f"benches/encode/{script} failed; its message is above (it needs 600 MB of disk)")
        stamp.write_text(digest)
    return folder, towers


def rust_worker():
    """Builds crates/encoder/benches/encode.rs and returns its executable."""
    cargo = shutil.which("cargo") or fail("cargo is missing; install Rust from https://rustup.rs")
    command = [cargo, "build", "--release", "-p", "diptych-encoder", "--bench", "encode",
               "--message-format", "json-render-diagnostics"]
    build = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if build.returncode != 0:
        fail("the Rust worker does not build; cargo's message is above")
    messages = map(json.loads, build.stdout.splitlines())
    found = [m["executable"] for m in messages
             if m.get("executable") and m["target"]["name"] == "encode" and "bench" in m["target"]["kind"]]
    return Path(found[-1]) if found else fail("cargo named no executable for the bench 'encode'")
