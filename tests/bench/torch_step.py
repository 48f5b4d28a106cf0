"""Whole training steps (forward, backward, clip, AdamW) in PyTorch, of the models that `hekla bench step` has: one JSON line
per model and dtype.

    torch_step.py [--models gpt-tiny,...] [--dtypes f32,bf16] [--steps N] [--device cpu|cuda] [--batch N --length N]

bf16 is autocast around the forward pass, as PyTorch's users do it. peak_bytes is what the process grew by at most (on a GPU:
what was allocated).
"""
import argparse
import json
import os
import resource
import time

import torch
from torch import nn
from torch.nn import functional as F

# vocabulary, context, layers, heads, width, batch
GPT = {"gpt-tiny": (65, 64, 4, 4, 128, 12), "gpt-char": (65, 256, 6, 6, 384, 16), "gpt2-124m": (50257, 64, 12, 12, 768, 4)}
LLAMA = {"llama-2": (256, 64, 2, 4, 128, 1), "llama-12": (256, 64, 12, 4, 128, 1)}


def split_heads(x, heads):  # [B, T, C] -> [B, H, T, D]
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x):
    return x.transpose(1, 2).flatten(2)


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(self.norm1(x)).chunk(3, -1))
        x = x + self.out(merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocab, context, layers, heads, width):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks, self.norm = nn.Sequential(*(GptBlock(width, heads) for _ in range(layers))), nn.LayerNorm(width)

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.blocks(self.token(tokens) + self.position(positions))
        return self.norm(x) @ self.token.weight.T


class LlamaBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 4 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x, cosine, sine):
        def rotated(t):
            a, b = t.chunk(2, -1)
            return torch.cat((a * cosine - b * sine, b * cosine + a * sine), -1)

        h = self.norm1(x)
        q, k, v = (split_heads(f(h), self.heads) for f in (self.q, self.k, self.v))
        x = x + self.out(merge_heads(F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, vocab, context, layers, heads, width):
        super().__init__()
        self.token, self.head = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias=False)
        self.blocks, self.norm = nn.ModuleList(LlamaBlock(width, heads) for _ in range(layers)), nn.RMSNorm(width, 1e-5)
        depth = width // heads
        angles = torch.outer(torch.arange(context), 10000.0 ** (-torch.arange(0, depth, 2) / depth))
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens):
        x = self.token(tokens)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return self.head(self.norm(x))


def peak_bytes(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name, dtype, options):
    vocab, context, layers, heads, width, batch = {**GPT, **LLAMA}[name]
    batch, context = options.batch or batch, options.length or context
    before = peak_bytes(options.device)
    with torch.device(options.device):
        model = (Gpt if name in GPT else Llama)(vocab, context, layers, heads, width)
        x, y = torch.randint(vocab, (batch, context)), torch.randint(vocab, (batch, context))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    times = []
    for _ in range(options.steps + 3):
        start = time.perf_counter()
        with torch.autocast(options.device, torch.bfloat16, enabled=dtype == "bf16"):
            loss = F.cross_entropy(model(x).flatten(0, 1).float(), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()  # waits for the device
        times.append((time.perf_counter() - start) * 1e3)
    timed = sorted(times[3:])
    ms = timed[len(timed) // 2]
    print(json.dumps({"peer": "PyTorch " + torch.__version__, "model": name, "dtype": dtype, "device": options.device,
                      "ms_per_step": round(ms, 3), "ms_min": round(timed[0], 3), "tokens_per_s": round(batch * context / ms * 1e3),
                      "peak_bytes": peak_bytes(options.device) - before, "loss": round(value, 4),
                      "threads": torch.get_num_threads()}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="gpt-tiny,gpt-char,gpt2-124m,llama-2,llama-12")
    parser.add_argument("--dtypes", default="f32,bf16")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--length", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # it finds one where there is no /sys
    torch.manual_seed(0)
    for dtype in options.dtypes.split(","):
        for name in options.models.split(","):
            measure(name, dtype, options)


main()
