"""The rows of tests/gpu/benches.txt in PyTorch on the GPU: one JSON line each, with what Hekla's line is to be compared with.

    torch_cuda.py ROWS [--deadline SECONDS]

Times are medians by events on the device, after a warm-up; f32 is f32 (no TF32). A row that PyTorch cannot do says why.
"""
import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i8": torch.int8}


def numbers(*shape, dtype=torch.float32, positive=False):
    x = torch.rand(*shape, device="cuda")
    return (x + 1e-3 if positive else 2 * x - 1).to(dtype)


def matmul(sizes, dtypes, transpose):
    *batch, m, n, k = sizes
    shapes = [(m, k), (k, n)]
    a, b = (numbers(*batch, *(s[::-1] if t == "t" else s), dtype=d) for s, t, d in zip(shapes, transpose, dtypes))
    if a.dtype != b.dtype:  # what it would do for its user: the one with more digits decides
        wide = torch.promote_types(a.dtype, b.dtype)
        a, b = a.to(wide), b.to(wide)
    return lambda x, y: (x.mT if transpose[0] == "t" else x) @ (y.mT if transpose[1] == "t" else y), [a, b]


def matmul_i8(sizes, dtypes, transpose):
    m, n, k = sizes
    shapes = [(m, k), (k, n)]
    a, b = (torch.randint(-128, 128, s[::-1] if t == "t" else s, device="cuda", dtype=torch.int8)
            for s, t in zip(shapes, transpose))
    return lambda x, y: torch._int_mm(x.mT if transpose[0] == "t" else x, y.mT if transpose[1] == "t" else y), [a, b]


def attention(sizes, dtypes, transpose):
    batch, heads, queries, *keys, depth = sizes
    q = numbers(batch, heads, queries, depth, dtype=dtypes[0])
    k, v = (numbers(batch, heads, *(keys or [queries]), depth, dtype=dtypes[0]) for _ in range(2))
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v]


def by_row(function, vectors):
    def make(sizes, dtypes, transpose):
        return function, [numbers(*sizes, dtype=dtypes[0])] + [numbers(sizes[-1], dtype=dtypes[0]) for _ in range(vectors)]
    return make


def cross_entropy(sizes, dtypes, transpose):
    targets = torch.randint(sizes[1], (sizes[0],), device="cuda")
    return lambda x: F.cross_entropy(x, targets), [numbers(*sizes, dtype=dtypes[0])]


def elementwise(function, operands):
    return lambda sizes, dtypes, transpose: (function, [numbers(*sizes, dtype=dtypes[0]) for _ in range(operands)])


def copy(sizes, dtypes, transpose):
    x = numbers(*sizes, dtype=dtypes[0])
    y = torch.empty_like(x)
    return lambda x: y.copy_(x), [x]


def adamw(sizes, dtypes, transpose):
    x = torch.nn.Parameter(numbers(*sizes))
    x.grad = numbers(*sizes)
    optimizer = torch.optim.AdamW([x], 1e-3, fused=True)
    return lambda _: optimizer.step(), [x]


OPS = {
    "matmul": matmul,
    "matmul_i8": matmul_i8,
    "attention": attention,
    "softmax": by_row(lambda x: F.softmax(x, -1), 0),
    "layer_norm": by_row(lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1e-5), 2),
    "rms_norm": by_row(lambda x, w: F.rms_norm(x, w.shape, w, 1e-5), 1),
    "cross_entropy": cross_entropy,
    "gelu": elementwise(lambda x: F.gelu(x, approximate="tanh"), 1),
    "add": elementwise(torch.add, 2),
    "sum": elementwise(lambda x: x.sum(-1), 1),
    "copy": copy,
    "adamw": adamw,
}


def median_ms(run, seconds):
    """Of portions of runs that take about 10 ms each."""
    def portion(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / repeats

    for _ in range(3):
        once = portion(1)
    repeats = max(1, int(10 / max(once, 1e-3)))
    times, stop = [], time.monotonic() + seconds
    while len(times) < 3 or time.monotonic() < stop:
        times.append(portion(repeats))
    return sorted(times)[len(times) // 2], min(times)


def measure_op(row, left):
    dtypes = [DTYPES[name] for name in row.dtype.split(",")]
    dtypes += dtypes[-1:] * 4
    function, inputs = OPS[row.op]([int(size) for size in row.shape.split("x")], dtypes, row.transpose)
    if row.gradient:
        inputs = [x.requires_grad_() for x in inputs]
        weights = torch.rand_like(function(*inputs).detach())
        run = lambda: torch.autograd.grad(function(*inputs), inputs, weights)
        ms, least = median_ms(run, row.seconds)
    else:
        with torch.no_grad():
            ms, least = median_ms(lambda: function(*inputs), row.seconds)
    return {"ms": round(ms, 4), "ms_min": round(least, 4)}


def measure_step(row, left):
    """In a process of its own, as Hekla's: memory and kernels chosen for one model do not help another."""
    command = [sys.executable, str(Path(__file__).with_name("torch_step.py")), "--device", "cuda", "--models", row.model,
               "--dtypes", row.precision, "--batch", str(row.batch), "--length", str(row.length), "--steps", str(row.steps)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=max(1, min(120, left))).stdout)


def reason(error):
    """A line without the command's name and folder: the file that it goes to is kept."""
    if isinstance(error, subprocess.TimeoutExpired):
        return "timed out"
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[-1 if isinstance(error, subprocess.SubprocessError) else 0]


def parse(line):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("what")
    for name, default in [("op", ""), ("shape", ""), ("dtype", "f32"), ("transpose", "nn"), ("model", ""), ("precision", "f32")]:
        parser.add_argument("--" + name, default=default)
    for name, default in [("batch", 0), ("length", 0), ("steps", 10)]:
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--gradient", action="store_true")
    return parser.parse_known_args(shlex.split(line))[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--deadline", type=float, default=240)
    options = parser.parse_args()
    end = time.monotonic() + options.deadline
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    measures = {"op": measure_op, "step": measure_step}
    for line in options.rows.read_text().splitlines():
        row = parse(line) if line and line[0] != "#" else None
        if not row or row.what not in measures:
            continue
        result = {"row": line, "peer": "PyTorch " + torch.__version__, "device": torch.cuda.get_device_name()}
        if time.monotonic() > end:
            result["left_out"] = "no time was left"
        else:
            try:
                result.update(measures[row.what](row, end - time.monotonic()))
            # out of memory, an op that this version lacks, a process that failed or printed something else
            except (RuntimeError, AttributeError, ValueError, subprocess.SubprocessError) as error:
                result["failed"] = reason(error)
            torch.cuda.empty_cache()
        print(json.dumps(result), flush=True)


main()
