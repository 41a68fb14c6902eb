"""What a reader must know of the machine to judge a measurement.

Owns: the name of the processor with the vector extensions that decide the speed of products, memory,
and how much of the processor other programs took meanwhile, which may forbid a verdict. Facts that a
system does not tell are None or left out, never guessed.
"""

import os
import platform
import re
import time
from pathlib import Path

# Above this share of the processor for other programs, no goal is called met or missed: peers whose
# threads wait for each other lose more than those that share out work as they go.
BUSY = 0.05
VECTOR_FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def describe():
    """Processor, cores, vector extensions, memory, system."""
    processor, flags, memory = platform.processor() or platform.machine(), set(), ""
    if os.path.exists("/proc/cpuinfo"):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
        processor = fields.get("model name", processor)
        flags = set((fields.get("flags") or fields.get("Features", "")).split())
    if os.path.exists("/proc/meminfo"):
        kib = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
        memory = f", {kib / 2**20:.0f} GiB"
    vectors = " ".join(f for f in VECTOR_FLAGS if f in flags)
    return f"{processor}, {os.cpu_count()} cores ({vectors}){memory}, {platform.system()} {platform.machine()}"


def disturbance(others):
    """A sentence about the share that other programs took."""
    if others is None:
        return "What other programs took of the processor is not known on this system."
    took = f"Other programs took {others:.0%} of the processor meanwhile"
    if others > BUSY:
        return f"{took}: too much for a verdict, measure again on an idle machine."
    return f"{took}."


class Others:
    """Share of the processor that programs other than the given processes take from now on."""

    def __init__(self, pids):
        self.pids = pids
        self.start, self.began = self.foreign_seconds(), time.monotonic()

    def share(self):
        """0 to 1; None where /proc does not tell."""
        if self.start is None:
            return None
        elapsed = time.monotonic() - self.began
        return max(0.0, (self.foreign_seconds() - self.start) / (elapsed * os.cpu_count()))

    def foreign_seconds(self):
        if not os.path.exists("/proc/stat"):
            return None
        # user nice system idle iowait irq softirq steal: all but idle and iowait is time taken.
        ticks = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        busy = sum(ticks) - ticks[3] - ticks[4]
        own = sum(map(process_ticks, self.pids))
        return (busy - own) / os.sysconf("SC_CLK_TCK")


def process_ticks(pid):
    """User and system time of a process; the name before them may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
