"""Exports the benchmark's CLIP model to ONNX, one graph per tower.

Owns: graphs of the operators that torch.onnx.export (opset 18) gives for transformers' CLIPModel with
eager attention, built from the safetensors file without torch: dynamic batch and length, weights
transposed for MatMul, LayerNormalization as one operator, the scale of attention as a Mul, quick_gelu
as Mul-Sigmoid-Mul. These are the patterns that ONNX Runtime's optimiser knows and fuses when a session
is made. Does not fuse anything itself; benches/RESULTS.md says how this compares with other exports.

Usage: export_onnx.py MODEL_DIR OUT_DIR
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 9


def read_weights(path):
    """Every tensor of a safetensors file in F32, mapped."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, mode="r", offset=8 + length, dtype=np.uint8)
    return {
        name: data[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


class Graph:
    """Nodes and initializers of one tower; every method returns the name of its output."""

    def __init__(self, weights):
        self.weights, self.nodes, self.initializers, self.names = weights, [], [], set()

    def constant(self, name, value):
        if name not in self.names:
            self.names.add(name)
            self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def ints(self, *values):
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value):
        return self.constant(f"scalar_{value}", np.array(value, np.float32))

    def op(self, kind, *inputs, **attributes):
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def tensor(self, name):
        return self.constant(name, self.weights[name])

    def linear(self, x, name):
        weight = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        y = self.op("MatMul", x, weight)
        return self.op("Add", y, self.tensor(f"{name}.bias")) if f"{name}.bias" in self.weights else y

    def norm(self, x, name, cfg):
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        return self.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=cfg["layer_norm_eps"])

    def activation(self, x, kind):
        if kind != "quick_gelu":
            raise SystemExit(f"export: hidden_act '{kind}' is not what the benchmark's model has")
        return self.op("Mul", x, self.op("Sigmoid", self.op("Mul", x, self.scalar(1.702))))

    def attention(self, x, name, cfg, mask):
        heads, width = cfg["num_attention_heads"], cfg["hidden_size"]
        shape = self.ints(0, 0, heads, width // heads)

        def split(part, order):
            y = self.op("Reshape", self.linear(x, f"{name}.{part}"), shape)
            return self.op("Transpose", y, perm=order)

        query, key = split("q_proj", [0, 2, 1, 3]), split("k_proj", [0, 2, 3, 1])
        value = split("v_proj", [0, 2, 1, 3])
        scores = self.op("Mul", self.op("MatMul", query, key), self.scalar((width // heads) ** -0.5))
        if mask:
            scores = self.op("Add", scores, mask)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), value)
        mixed = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, width))
        return self.linear(mixed, f"{name}.out_proj")

    def blocks(self, x, tower, cfg, mask=None):
        for i in range(cfg["num_hidden_layers"]):
            at = f"{tower}.encoder.layers.{i}"
            y = self.norm(x, f"{at}.layer_norm1", cfg)
            x = self.op("Add", x, self.attention(y, f"{at}.self_attn", cfg, mask))
            y = self.linear(self.norm(x, f"{at}.layer_norm2", cfg), f"{at}.mlp.fc1")
            x = self.op("Add", x, self.linear(self.activation(y, cfg["hidden_act"]), f"{at}.mlp.fc2"))
        return x

    def save(self, path, inputs, output, dim):
        self.nodes.append(helper.make_node("Identity", [output], ["embedding"], name="output"))
        embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])
        graph = helper.make_graph(self.nodes, path.stem, [inputs], [embedding], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def vision(weights, config, path):
    """pixel_values [batch, 3, side, side] -> embedding [batch, projection]."""
    cfg, g = config["vision_config"], Graph(weights)
    width, side, patch = cfg["hidden_size"], cfg["image_size"], cfg["patch_size"]
    at = "vision_model.embeddings"
    x = g.op("Conv", "pixel_values", g.tensor(f"{at}.patch_embedding.weight"),
             kernel_shape=[patch, patch], strides=[patch, patch])
    x = g.op("Transpose", g.op("Reshape", x, g.ints(0, width, -1)), perm=[0, 2, 1])
    batch = g.op("Shape", "pixel_values", start=0, end=1)
    class_shape = g.op("Concat", batch, g.ints(1, width), axis=0)
    class_token = g.constant("class_token", weights[f"{at}.class_embedding"].reshape(1, 1, width))
    x = g.op("Concat", g.op("Expand", class_token, class_shape), x, axis=1)
    x = g.op("Add", x, g.constant("positions", weights[f"{at}.position_embedding.weight"][None]))
    x = g.blocks(g.norm(x, "vision_model.pre_layrnorm", cfg), "vision_model", cfg)
    pooled = g.op("Gather", x, g.constant("class_position", np.array(0, np.int64)), axis=1)
    x = g.linear(g.norm(pooled, "vision_model.post_layernorm", cfg), "visual_projection")
    shape = ["batch", cfg["num_channels"], side, side]
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)
    g.save(path, pixels, x, config["projection_dim"])


def text(weights, config, path):
    """input_ids [batch, length] -> embedding [batch, projection], pooled at the first end token."""
    cfg, g = config["text_config"], Graph(weights)
    context = cfg["max_position_embeddings"]
    at = "text_model.embeddings"
    length = g.op("Shape", "input_ids", start=1, end=2)
    zero = g.ints(0)
    positions = g.constant("positions", weights[f"{at}.position_embedding.weight"][None])
    x = g.op("Gather", g.tensor(f"{at}.token_embedding.weight"), "input_ids", axis=0)
    x = g.op("Add", x, g.op("Slice", positions, zero, length, g.ints(1)))
    causal = np.triu(np.full((context, context), np.finfo(np.float32).min, np.float32), 1)
    lengths = g.op("Concat", length, length, axis=0)
    mask = g.op("Slice", g.constant("causal", causal), g.ints(0, 0), lengths, g.ints(0, 1))
    mask = g.op("Unsqueeze", mask, g.ints(0, 1))
    x = g.norm(g.blocks(x, "text_model", cfg, mask), "text_model.final_layer_norm", cfg)
    is_end = g.op("Equal", "input_ids", g.constant("eos", np.array(cfg["eos_token_id"], np.int64)))
    first = g.op("ArgMax", g.op("Cast", is_end, to=TensorProto.INT32), axis=1, keepdims=1)
    pooled = g.op("GatherND", x, first, batch_dims=1)
    x = g.linear(pooled, "text_projection")
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    g.save(path, ids, x, config["projection_dim"])


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    settings = json.loads((source / "config.json").read_text())
    tensors = read_weights(source / "model.safetensors")
    target.mkdir(parents=True, exist_ok=True)
    vision(tensors, settings, target / "vision.onnx")
    text(tensors, settings, target / "text.onnx")
