"""What the encoder benchmark needs before it can measure, made once and kept.

Owns: the packages of the ONNX Runtime worker, the random model and its ONNX export. Everything stays
in the cache folder, so only the first run needs a network. Does not own how an environment is made or
Rust is built (side_by_side.py). Uses nothing outside Python's standard library.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from side_by_side import fail, python as environment, rust_bench, say

HERE = Path(__file__).resolve().parent


def python(cache):
    """The interpreter that has onnxruntime, onnx and numpy, installed into the cache if need be."""
    return environment(cache, HERE / "requirements.txt", ["numpy", "onnx", "onnxruntime"])


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
        say(f"{script} writes {output}")
        if subprocess.run([interpreter, HERE / script, *arguments]).returncode != 0:
            fail(f"benches/encode/{script} failed; its message is above (it needs 600 MB of disk)")
        stamp.write_text(digest)
    return folder, towers


def rust_worker():
    """The executable of crates/encoder/benches/encode.rs."""
    return rust_bench("encode", "-p", "diptych-encoder")
