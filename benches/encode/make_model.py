"""Writes what the encoder benchmark computes on: a CLIP ViT-B/32 directory and a set of inputs.

Owns: the sizes of openai/clip-vit-base-patch32, deterministic random weights, a byte-level
tokenizer, random images and token sequences. Speed does not depend on the values of weights, but
agreement between implementations can only be checked where the outputs differ from input to input,
so the weights follow the initialisation of the published code. Does not own the ONNX export.

Usage: make_model.py DIR
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np

PROJECTION, LOGIT_SCALE = 512, 2.6592
TEXT = dict(vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12,
            num_attention_heads=8, max_position_embeddings=77, hidden_act="quick_gelu",
            layer_norm_eps=1e-5, bos_token_id=49406, eos_token_id=49407, pad_token_id=1)
VISION = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
              num_channels=3, image_size=224, patch_size=32, hidden_act="quick_gelu",
              layer_norm_eps=1e-5)
IMAGES = 32
TEXTS = 8


def tensors():
    """Name, shape, mean and standard deviation of every tensor of a CLIPModel, in file order."""
    yield "logit_scale", (), LOGIT_SCALE, 0.0
    for tower, cfg in (("text", TEXT), ("visual", VISION)):
        width = cfg["hidden_size"]
        yield f"{tower}_projection.weight", (PROJECTION, width), 0.0, width**-0.5
    width = TEXT["hidden_size"]
    at = "text_model.embeddings"
    yield f"{at}.token_embedding.weight", (TEXT["vocab_size"], width), 0.0, 0.02
    yield f"{at}.position_embedding.weight", (TEXT["max_position_embeddings"], width), 0.0, 0.02
    width, patch = VISION["hidden_size"], VISION["patch_size"]
    positions = (VISION["image_size"] // patch) ** 2 + 1
    at = "vision_model.embeddings"
    yield f"{at}.class_embedding", (width,), 0.0, width**-0.5
    yield f"{at}.patch_embedding.weight", (width, VISION["num_channels"], patch, patch), 0.0, 0.02
    yield f"{at}.position_embedding.weight", (positions, width), 0.0, 0.02
    yield from norm("text_model.final_layer_norm", TEXT["hidden_size"])
    # Spelled like this in every published checkpoint.
    yield from norm("vision_model.pre_layrnorm", width)
    yield from norm("vision_model.post_layernorm", width)
    for tower, cfg in (("text_model", TEXT), ("vision_model", VISION)):
        for i in range(cfg["num_hidden_layers"]):
            yield from layer(f"{tower}.encoder.layers.{i}", cfg)


def norm(name, width):
    yield f"{name}.weight", (width,), 1.0, 0.1
    yield f"{name}.bias", (width,), 0.0, 0.02


def layer(at, cfg):
    width, inner, depth = cfg["hidden_size"], cfg["intermediate_size"], cfg["num_hidden_layers"]
    yield from norm(f"{at}.layer_norm1", width)
    yield from norm(f"{at}.layer_norm2", width)
    narrow = width**-0.5 * (2 * depth) ** -0.5
    for name, out, fan_in, std in (
        ("self_attn.q_proj", width, width, 2 * narrow),
        ("self_attn.k_proj", width, width, 2 * narrow),
        ("self_attn.v_proj", width, width, 2 * narrow),
        ("self_attn.out_proj", width, width, width**-0.5),
        ("mlp.fc1", inner, width, (2 * width) ** -0.5),
        ("mlp.fc2", width, inner, 2 * narrow),
    ):
        yield f"{at}.{name}.weight", (out, fan_in), 0.0, std
        yield f"{at}.{name}.bias", (out,), 0.0, 0.02


def write_weights(path):
    rng = np.random.default_rng(32)
    header, end, specs = {}, 0, list(tensors())
    for name, shape, _, _ in specs:
        start, end = end, end + 4 * math.prod(shape)
        header[name] = dict(dtype="F32", shape=list(shape), data_offsets=[start, end])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, mean, std in specs:
            values = rng.standard_normal(math.prod(shape), dtype=np.float32) * np.float32(std)
            file.write((values + np.float32(mean)).astype("<f4").tobytes())


def write_tokenizer(folder):
    """Bytes as characters, once within and once at the end of a word, and the special tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]
    tokens = letters + [letter + "</w>" for letter in letters] + ["th", "the</w>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    vocab |= {"<|startoftext|>": TEXT["bos_token_id"], "<|endoftext|>": TEXT["eos_token_id"]}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")


def write_config(folder):
    config = dict(architectures=["CLIPModel"], model_type="clip", projection_dim=PROJECTION,
                  logit_scale_init_value=LOGIT_SCALE, text_config=TEXT, vision_config=VISION)
    side = VISION["image_size"]
    preprocessor = dict(
        image_processor_type="CLIPImageProcessor", do_resize=True, size=dict(shortest_edge=side),
        resample=3, do_center_crop=True, crop_size=dict(height=side, width=side),
        do_rescale=True, rescale_factor=1 / 255, do_normalize=True, do_convert_rgb=True,
        image_mean=[0.48145466, 0.4578275, 0.40821073],
        image_std=[0.26862954, 0.26130258, 0.27577711])
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))


def write_inputs(folder):
    """images.f32: [IMAGES, 3, side, side]; tokens.u32: [TEXTS, context], no special tokens."""
    rng = np.random.default_rng(77)
    side, context = VISION["image_size"], TEXT["max_position_embeddings"]
    images = rng.standard_normal((IMAGES, 3, side, side), dtype=np.float32)
    images.astype("<f4").tofile(folder / "images.f32")
    tokens = rng.integers(0, TEXT["bos_token_id"], size=(TEXTS, context))
    tokens.astype("<u4").tofile(folder / "tokens.u32")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_config(target)
    write_tokenizer(target)
    write_inputs(target)
    write_weights(target / "model.safetensors")
