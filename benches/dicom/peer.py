"""Decode and window of a 2048 x 2048 CR: this program against pydicom with pylibjpeg and numpy.

Makes a virtual environment and the files, then runs both in turn, round by round, and prints medians and their
ratio. Arguments: the bench's executable, and a folder to work in. Both sides start from the bytes of a file in
memory and end at 8 bits of grey; both must show the same picture.
"""

import io
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

PACKAGES = ["pydicom==3.0.2", "numpy", "pylibjpeg==2.1.0", "pylibjpeg-libjpeg==2.5.0", "pylibjpeg-openjpeg==2.6.0",
            "pylibjpeg-rle==2.2.0", "pyjpegls==1.5.1", "imagecodecs"]
SIDE, ROUNDS = 2048, 7


def environment(folder):
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "-q", "install", *PACKAGES], check=True)
    return python


def make(folder):
    """A picture of 14 bits with broad shapes and a little noise, in five encodings."""
    import imagecodecs
    import numpy
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    y, x = numpy.mgrid[0:SIDE, 0:SIDE] / SIDE
    picture = 0.5 + 0.3 * numpy.sin(9 * x) * numpy.cos(7 * y) + 0.1 * numpy.hypot(x - 0.5, y - 0.5)
    picture += numpy.random.default_rng(7).normal(0, 0.002, picture.shape)
    picture = (numpy.clip(picture, 0, 1) * 16383).astype(numpy.uint16)
    paths = []
    for name, uid in [("uncompressed", "1.2.840.10008.1.2.1"), ("rle", "1.2.840.10008.1.2.5"),
                      ("jpeg lossless", "1.2.840.10008.1.2.4.70"), ("jpeg-ls", "1.2.840.10008.1.2.4.80"),
                      ("jpeg 2000", "1.2.840.10008.1.2.4.90")]:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = UID("1.2.840.10008.5.1.4.1.1.1"), UID("1.2.3"), "CR"
        data.Rows = data.Columns = SIDE
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 14, 13, 0
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.WindowCenter, data.WindowWidth = 8000, 12000
        data.PixelData = picture.tobytes()
        data["PixelData"].VR = "OW"
        if name == "jpeg lossless":
            data.PixelData = encapsulate([imagecodecs.ljpeg_encode(picture, bitspersample=14)])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = UID(uid)
        elif name != "uncompressed":
            data.compress(UID(uid))
        paths.append(folder / f"{name}.dcm")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


def show(source):
    import numpy
    import pydicom

    data = pydicom.dcmread(io.BytesIO(source))
    values = data.pixel_array.astype(numpy.float32) * float(data.RescaleSlope) + float(data.RescaleIntercept)
    centre, width = float(data.WindowCenter), float(data.WindowWidth)
    shown = numpy.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255 + 0.5
    return 255 - shown.astype(numpy.uint8)


def compare(executable, folder):
    print(f"{'encoding':14} {'ours ms':>9} {'peer ms':>9} {'peer/ours':>10}")
    for path in make(folder):
        source, ours, theirs = path.read_bytes(), [], []
        show(source)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            show(source)
            theirs.append((time.perf_counter() - began) * 1000)
            line = subprocess.run([executable, "--repeat", "3", path], check=True, capture_output=True, text=True)
            ours.extend(float(number) for number in line.stdout.split("\t")[1].split())
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        print(f"{path.stem:14} {ours:9.1f} {theirs:9.1f} {theirs / ours:10.2f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: peer.py BENCH_EXECUTABLE FOLDER")
    folder = Path(sys.argv[2]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    if Path(sys.prefix) != folder / "venv":
        sys.exit(subprocess.run([python, __file__, Path(sys.argv[1]).absolute(), folder]).returncode)
    compare(sys.argv[1], folder)
