"""The matrix products of one CLIP forward pass, counted from the shapes in config.json.

Owns: which products there are and their floating point operations (a product of m x k and k x n is
2mkn), for the whole model as every peer computes it and for the least that gives the same embedding.
Does not own time. Element-wise work, layer norms and softmax are not counted.
"""

from collections import namedtuple

# `count` products of `batch` independent [m, k] x [k, n] each.
Product = namedtuple("Product", "name count batch m k n")


def flops(products):
    return sum(2 * p.count * p.batch * p.m * p.k * p.n for p in products)


def of_case(config, case, pooled_only=False):
    """Products of `("image", batch)` or `("text", batch, tokens, padded)`. With `pooled_only`, the
    last block computes queries, output projection and feed-forward for the pooled position alone."""
    kind, batch, *lengths = case
    cfg = config["vision_config" if kind == "image" else "text_config"]
    width, products = cfg["hidden_size"], []
    if kind == "image":
        patch, channels = cfg["patch_size"], cfg["num_channels"]
        patches = (cfg["image_size"] // patch) ** 2
        positions = patches + 1
        products.append(Product("patches", 1, 1, batch * patches, channels * patch * patch, width))
    else:
        positions = lengths[1]
    layers = cfg["num_hidden_layers"]
    products += blocks(cfg, layers - 1 if pooled_only else layers, batch, positions, positions)
    if pooled_only:
        products += blocks(cfg, 1, batch, positions, 1)
    products.append(Product("projection", 1, 1, batch, width, config["projection_dim"]))
    return products


def blocks(cfg, layers, batch, positions, queries):
    """`layers` blocks over `positions`, of which `queries` are carried on."""
    width, inner, heads = cfg["hidden_size"], cfg["intermediate_size"], cfg["num_attention_heads"]
    rows, carried, head = batch * positions, batch * queries, width // heads
    if rows == carried:
        yield Product("queries, keys, values", layers, 1, rows, width, 3 * width)
    else:
        yield Product("queries of the last block", layers, 1, carried, width, width)
        yield Product("keys, values of the last block", layers, 1, rows, width, 2 * width)
    yield Product("scores", layers, batch * heads, queries, head, positions)
    yield Product("mixing of values", layers, batch * heads, queries, positions, head)
    yield Product("attention output", layers, 1, carried, width, width)
    yield Product("feed-forward in", layers, 1, carried, width, inner)
    yield Product("feed-forward out", layers, 1, carried, inner, width)
