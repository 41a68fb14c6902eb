"""The tables of the encoder benchmark.

Owns: the facts that make a measurement comparable (machine, commit, date, versions, what else ran), the
targets, and the text of the section in benches/RESULTS.md. Does not own any measurement.
"""

import datetime
import re

import machine
from side_by_side import ROOT, commit, output

# Least ratio to ONNX Runtime by case, and to ONNX Runtime at the padded length.
IMAGE_TARGETS = {8: 1.0, 32: 1.0}
TEXT_TARGETS = {8: 1.2, 16: 1.2}
PADDED_TARGET = 4.0
SHARE_TARGET = 0.85
# Stretch goals of 8-bit blocks.
INT8_IMAGE_TARGET = 1.5
INT8_PADDED_TARGET = 8.0
INT8_COSINE_TARGET = 0.995
MEMORY_TARGET_MB = 500


def facts(arguments, onnxruntime):
    lock = (ROOT / "Cargo.lock").read_text()
    candle = re.search(r'name = "candle-transformers"\nversion = "([^"]+)"', lock)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine.describe(),
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "slices": arguments.slices,
        "onnxruntime": onnxruntime,
        "candle": candle.group(1) if candle else "unknown",
        "rustc": output("rustc", "--version"),
    }


def title(case):
    if case[0] == "image":
        return f"{case[1]} image{'s' if case[1] > 1 else ''}"
    return f"{case[1]} text{'s' if case[1] > 1 else ''} of {case[2]} tokens"


def ratio(value):
    return f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def against(value, target, known):
    if target is None:
        return ""
    if (known["others"] or 0) > machine.BUSY:
        return f"{target:g}: measure again"
    return f"{target:g}: {'met' if value >= target else 'missed'}"


def markdown(results):
    known = results["facts"]
    images = [e for e in results["cases"] if e["case"][0] == "image"]
    texts = [e for e in results["cases"] if e["case"][0] == "text"]
    return "\n".join([
        "## Encoder: Diptych, ONNX Runtime, candle-transformers",
        "",
        f"{known['machine']}. Commit {known['commit']}, {known['date']}. ONNX Runtime "
        f"{known['onnxruntime']}, candle-transformers {known['candle']}, {known['rustc']}. "
        f"CLIP ViT-B/32, random weights, f32, {known['threads']} threads each. {machine.disturbance(known['others'])}",
        "",
        f"One run, the peers in turn slice by slice: {known['repeats']} repeats of {known['slices']} rounds. "
        "A ratio is taken within each round; given are the median of the repeats' medians and the lowest "
        "and highest repeat, and beside it the ratio of each peer's fastest slices, which other work on the "
        "machine disturbs least. Above 1 Diptych is faster. All peers give the same unit vectors within "
        f"{known['difference']:.0e}.",
        "",
        *speed_table(images, known, "images/s", lambda e, s: f"{e['case'][1] / s:.1f}", image_target),
        "",
        *speed_table(texts, known, "ms per call", lambda e, s: f"{s * 1e3:.1f}", text_target),
        "",
        *padded_table(texts, known),
        "",
        *int8_table(results["cases"], known),
        "",
        *share_table(images, known),
        "",
        *memory_table(known),
    ])


def image_target(case):
    return IMAGE_TARGETS.get(case[1])


def text_target(case):
    return TEXT_TARGETS.get(case[2]) if case[1] == 1 else None


def speed_table(entries, known, unit, show, target):
    yield (f"| {unit} | Diptych | ONNX Runtime | candle | Diptych : ONNX Runtime | target | "
           "fastest slices | Diptych : candle |")
    yield "|---|---|---|---|---|---|---|---|"
    for e in entries:
        speeds = [show(e, e["seconds"][name]) for name in ("ours", "onnxruntime", "candle")]
        ort, candle = e["ratio"]["onnxruntime"], e["ratio"]["candle"]
        verdict = against(ort["median"], target(e["case"]), known)
        cells = [title(e["case"]), *speeds, ratio(ort), verdict, f"{ort['best']:.2f}", ratio(candle)]
        yield "| " + " | ".join(cells) + " |"


def padded_table(entries, known):
    yield "| text of | Diptych, ms | ONNX Runtime padded to 77, ms | ratio | target |"
    yield "|---|---|---|---|---|"
    for e in entries:
        if "onnxruntime padded" in e["ratio"]:
            mine, padded = e["seconds"]["ours"] * 1e3, e["seconds"]["onnxruntime padded"] * 1e3
            value = e["ratio"]["onnxruntime padded"]
            yield (f"| {e['case'][2]} tokens | {mine:.1f} | {padded:.1f} | {ratio(value)} | "
                   f"{against(value['median'], PADDED_TARGET, known)} |")


def int8_table(entries, known):
    """Ours with 8-bit transformer blocks, which is off unless asked for."""
    yield ("| `--precision int8` | Diptych int8 : f32 | Diptych int8 : ONNX Runtime f32 | stretch | "
           "int8 : ONNX Runtime padded to 77 | stretch |")
    yield "|---|---|---|---|---|---|"
    for e in entries:
        ours, ort = e["int8"]["ours"], e["int8"]["onnxruntime"]
        image = INT8_IMAGE_TARGET if e["case"][0] == "image" and e["case"][1] in IMAGE_TARGETS else None
        cells = [title(e["case"]), ratio(ours), ratio(ort), against(ort["median"], image, known)]
        padded = e["int8"].get("onnxruntime padded")
        cells += [ratio(padded), against(padded["median"], INT8_PADDED_TARGET, known)] if padded else ["", ""]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    verdict = "met" if known["int8_cosine"] >= INT8_COSINE_TARGET else "missed"
    yield (f"Lowest cosine of the 8-bit embeddings to the full ones on this model: {known['int8_cosine']:.4f} "
           f"({INT8_COSINE_TARGET}: {verdict}).")


def share_table(entries, known):
    """The model's rate of arithmetic beside that of one large product, timed in the same rounds."""
    yield ("| | GF counted (needed) | Diptych, GF/s | 2048-cubed product, Diptych's / ONNX Runtime's, "
           "GF/s | share of Diptych's | share of ONNX Runtime's | target |")
    yield "|---|---|---|---|---|---|---|"
    cube = 2 * 2048**3 / 1e9
    for e in entries:
        rate = e["gflop"] / e["seconds"]["ours"]
        ours, ort = e["share"]["gemm ours"], e["share"]["gemm onnxruntime"]
        products = [cube / e["seconds"][f"gemm {name}"] for name in ("ours", "onnxruntime")]
        verdict = against(ours["median"], SHARE_TARGET if e["case"][1] in IMAGE_TARGETS else None, known)
        yield (f"| {title(e['case'])} | {e['gflop']:.1f} ({e['gflop_needed']:.1f}) | {rate:.0f} | "
               f"{products[0]:.0f} / {products[1]:.0f} | {ratio(ours)} | {ratio(ort)} | {verdict} |")
    yield ""
    yield ("Counted are all products of the model, as the peers compute them; in brackets what is left "
           "when the last block finishes the pooled position only, as Diptych does.")


def memory_table(known):
    yield "| peak resident memory at 32 images, MB | Diptych | ONNX Runtime | candle | target |"
    yield "|---|---|---|---|---|"
    peak, weights = known["peak_mb"], known["weights_mb"]
    over = peak["ours"] - weights
    verdict = f"{MEMORY_TARGET_MB}: {'met' if over <= MEMORY_TARGET_MB else 'missed'}"
    yield f"| whole process | {peak['ours']:.0f} | {peak['onnxruntime']:.0f} | {peak['candle']:.0f} | |"
    beyond = [f"{peak[name] - weights:.0f}" for name in ("ours", "onnxruntime", "candle")]
    yield f"| beyond the weights ({weights:.0f} MB) | {' | '.join(beyond)} | {verdict} |"


def profile_table(case, whole, rows):
    """Each product alone (at the pace it has outside the model, weights not in cache) and the rest."""
    lines = [f"{title(case)}: {whole * 1e3:.2f} ms", "",
             f"{'product':32} {'times':>5} {'batch x m x k x n':>24} {'GF':>8} {'ms':>9} {'GF/s':>7} {'share':>7}"]
    for p, gflop, seconds in rows:
        size = f"{p.batch} x {p.m} x {p.k} x {p.n}"
        lines.append(f"{p.name:32} {p.count:5} {size:>24} {gflop:8.3f} {seconds * 1e3:9.2f} "
                     f"{gflop / seconds:7.1f} {seconds / whole:7.1%}")
    total = sum(seconds for _, _, seconds in rows)
    gflop = sum(g for _, g, _ in rows)
    lines.append(f"{'all products':63} {gflop:8.3f} {total * 1e3:9.2f} {gflop / total:7.1f} {total / whole:7.1%}")
    lines.append(f"{'everything else':63} {'':8} {(whole - total) * 1e3:9.2f} {'':7} {1 - total / whole:7.1%}\n")
    return "\n".join(lines)
