"""What `cargo bench -p diptych-encoder --bench trunk` times, with torchvision and transformers.

    python trunk.py MODELS [THREADS]
"""

import pathlib
import sys
import time

import numpy as np
import tokenizers
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

BATCH, ROUNDS = 32, 8
CAPTION = "a brown dog runs along the beach with a stick in its mouth"


def timed(what, inputs, run):
    run()
    wall = processor = float("inf")
    for _ in range(ROUNDS):
        clock, used = time.perf_counter(), time.process_time()
        run()
        wall = min(wall, time.perf_counter() - clock)
        processor = min(processor, time.process_time() - used)
    print(f"{what}: {inputs / wall:.1f} a second, {processor / inputs * 1e3:.2f} ms of one core each")


def main():
    models = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        torch.set_num_threads(int(sys.argv[2]))
    net = torchvision.models.mobilenet_v2()
    net.load_state_dict(load_file(models / "mobilenet_v2" / "mobilenet_v2_imagenet.safetensors"))
    net = net.features.eval()
    steps = v2.Compose([
        v2.Resize(256, interpolation=v2.InterpolationMode.BILINEAR, antialias=True),
        v2.CenterCrop(224),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    y, x = np.mgrid[0:375, 0:500]
    photo = Image.fromarray(np.stack([x, y, x ^ y], axis=-1).astype(np.uint8), "RGB")
    timed("prepare a photo of 500 x 375", BATCH, lambda: [steps(photo) for _ in range(BATCH)])
    pixels = torch.stack([steps(photo)] * BATCH)
    folder = models / "all-MiniLM-L6-v2-fp16"
    bert = transformers.BertModel(transformers.BertConfig.from_json_file(folder / "config.json")).eval()
    bert.load_state_dict({k: v.float() for k, v in load_file(folder / "model.fp16.safetensors").items() if "position_ids" not in k}, strict=False)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    ids = torch.tensor([tokenizer.encode(CAPTION).ids] * BATCH)
    with torch.inference_mode():
        timed("MobileNetV2, batch 32", BATCH, lambda: net(pixels).mean(dim=(2, 3)))
        last = net.to(memory_format=torch.channels_last)
        nhwc = pixels.contiguous(memory_format=torch.channels_last)
        timed("MobileNetV2, batch 32, channels last", BATCH, lambda: last(nhwc).mean(dim=(2, 3)))
        timed("MobileNetV2, batch 1", 1, lambda: net(pixels[:1]).mean(dim=(2, 3)))
        timed("MiniLM, batch 32", BATCH, lambda: bert(input_ids=ids).last_hidden_state.mean(dim=1))


main()
