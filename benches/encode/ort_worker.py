"""The ONNX Runtime worker of the encoder benchmark.

Owns: one session per tower on the CPU provider with every graph optimisation and the given number of
threads, answering the requests that crates/encoder/benches/encode.rs describes. Does not own the
order of requests or statistics, which are run.py's.

Usage: ort_worker.py MODEL_DIR ONNX_DIR THREADS
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

SIDE, CONTEXT, BOS, EOS = 224, 77, 49406, 49407


def session(model, threads):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def product(batch, m, k, n, threads):
    """x [batch, m, k] times a constant [k, n], which ONNX Runtime packs once, or a [batch, k, n]."""
    shape = [k, n] if batch == 1 else [batch, k, n]
    weight = np.random.default_rng(0).random(shape, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, m, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, m, n])],
        [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return session(model.SerializeToString(), threads)


class Worker:
    def __init__(self, model, towers, threads):
        self.threads = threads
        self.sessions = {
            "image": session(str(towers / "vision.onnx"), threads),
            "text": session(str(towers / "text.onnx"), threads),
        }
        self.images = np.fromfile(model / "images.f32", "<f4").reshape(-1, 3, SIDE, SIDE)
        self.tokens = np.fromfile(model / "tokens.u32", "<u4").reshape(-1, CONTEXT).astype(np.int64)
        self.products = {}

    def call(self, kind, *sizes):
        """A function of no arguments that computes the case once."""
        if kind == "image":
            name, x = "pixel_values", self.images[: sizes[0]]
        elif kind == "text":
            batch, tokens, padded = sizes
            name, x = "input_ids", np.full((batch, padded), EOS, np.int64)
            x[:, 0] = BOS
            x[:, 1 : tokens - 1] = self.tokens[:batch, : tokens - 2]
        elif kind == "gemm":
            batch, m, k, n, _ = sizes
            if sizes not in self.products:
                self.products[sizes] = product(batch, m, k, n, self.threads)
            x = np.random.default_rng(1).random((batch, m, k), dtype=np.float32)
            return lambda: self.products[sizes].run(None, {"x": x})[0]
        else:
            raise ValueError(f"no such case: {kind}")
        run = self.sessions[kind].run
        return lambda: run(None, {name: x})[0]

    def answer(self, request):
        command, *words = request.split()
        if command == "seconds":
            warm, count, kind, *sizes = words
            call = self.call(kind, *map(int, sizes))
            for _ in range(int(warm)):
                call()
            start = time.perf_counter()
            for _ in range(int(count)):
                call()
            return {"seconds": time.perf_counter() - start}
        if command == "vectors":
            return {"vectors": self.call(words[0], *map(int, words[1:]))().tolist()}
        if command == "peak":
            status = Path("/proc/self/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            return {"peak_kib": int(line.split()[1])}
        raise ValueError(f"no such request: {request}")


if __name__ == "__main__":
    worker = Worker(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps({"ready": True, "version": onnxruntime.__version__}), flush=True)
    for line in sys.stdin:
        try:
            reply = worker.answer(line)
        except Exception as error:  # Reported to the coordinator, which stops the run.
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
