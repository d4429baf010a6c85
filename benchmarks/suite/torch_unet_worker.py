"""The U-Net of masf_jax.nn.UNet in PyTorch, timed on request: for benchmarks/speed/unet_against_torch.py.

python torch_unet_worker.py THREADS

Reads lines of JSON from standard input: {"job": "build", "channels", "blocks", "embedding"} answers
{"parameters"}; {"job": "forward" | "training", "size", "batch"} answers {"seconds"} for one call (after one
more the first time); {"job": "version"} answers {"version"}.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def norm(channels):
    groups = 8
    while groups > 1 and (channels % groups or channels // groups < 4):
        groups //= 2
    return nn.GroupNorm(groups, channels)


class Conv(nn.Module):
    def __init__(self, into, out, stride=1):
        super().__init__()
        self.conv, self.after = nn.Conv2d(into, out, 3, stride), int(stride == 1)

    def forward(self, x):
        return self.conv(functional.pad(x, (1, self.after, 1, self.after), mode="circular"))


class Block(nn.Module):
    def __init__(self, into, out, embedding):
        super().__init__()
        self.norm1, self.conv1, self.film = norm(into), Conv(into, out), nn.Linear(embedding, 2 * out)
        self.norm2, self.conv2 = norm(out), Conv(out, out)
        self.skip = nn.Conv2d(into, out, 1) if into != out else nn.Identity()

    def forward(self, x, time):
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(time)[:, :, None, None].chunk(2, 1)
        h = functional.silu(self.norm2(h) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(h)


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads, self.norm = heads, norm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        b, c = x.shape[:2]
        h = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(h).view(b, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        h = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, c)
        return x + self.out(h).transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    def __init__(self, outputs, channels, multipliers, blocks, attention, embedding, heads=4):
        super().__init__()
        self.embedding, last, levels = embedding, len(multipliers) - 1, range(len(multipliers))
        self.time = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        widths, now = [channels], channels
        self.first, self.down, self.up = Conv(outputs, channels), nn.ModuleList(), nn.ModuleList()

        def stage(into, out, level):
            parts = [Block(into, out, embedding)] + ([Attention(out, heads)] if level in attention else [])
            return nn.ModuleList(parts)

        for level in levels:
            for _ in range(blocks):
                self.down.append(stage(now, now := channels * multipliers[level], level))
                widths.append(now)
            if level < last:
                self.down.append(nn.ModuleList([Conv(now, now, 2)]))
                widths.append(now)
        self.middle = nn.ModuleList(
            [Block(now, now, embedding), Attention(now, heads), Block(now, now, embedding)]
        )
        for level in reversed(levels):
            for _ in range(blocks + 1):
                self.up.append(stage(now + widths.pop(), now := channels * multipliers[level], level))
            if level > 0:
                self.up.append(nn.ModuleList([Conv(now, now)]))
        self.norm, self.head = norm(now), Conv(now, outputs)

    def forward(self, x, t):
        frequencies = torch.logspace(0, 2, self.embedding // 2)
        phase = t[:, None] * frequencies
        time = self.time(torch.cat([phase.sin(), phase.cos()], 1))

        def run(parts, h):
            for part in parts:
                h = part(h, time) if isinstance(part, Block) else part(h)
            return h

        h = self.first(x)
        skips = [h]
        for parts in self.down:
            h = run(parts, h)
            skips.append(h)
        h = run(self.middle, h)
        for parts in self.up:
            if isinstance(parts[0], Block):
                h = run(parts, torch.cat([h, skips.pop()], 1))
            else:
                h = run(parts, functional.interpolate(h, scale_factor=2, mode="nearest"))
        return self.head(functional.silu(self.norm(h)))


class Timer:
    """The network in one of torch's memory layouts, and its optimiser."""

    def __init__(self, layout, **size):
        torch.manual_seed(0)
        self.layout = {"first": torch.contiguous_format, "last": torch.channels_last}[layout]
        self.net = UNet(2, multipliers=(1, 2, 4, 8), attention=(2, 3), **size).to(memory_format=self.layout)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=1e-6)
        self.parameters, self.warm = sum(p.numel() for p in self.net.parameters()), set()

    def seconds(self, job, size, batch):
        rng = np.random.default_rng(0)
        x = torch.tensor(rng.standard_normal((batch, 2, size, size)), dtype=torch.float32)
        x, t = x.to(memory_format=self.layout), torch.full((batch,), 0.5)
        run = self.forward if job == "forward" else self.training
        if (job, size, batch) not in self.warm:
            run(x, t)
            self.warm.add((job, size, batch))
        begin, cpu = time.perf_counter(), time.process_time()
        run(x, t)
        return time.perf_counter() - begin, time.process_time() - cpu

    def forward(self, x, t):
        with torch.inference_mode():
            self.net(x, t)

    def training(self, x, t):
        self.optimiser.zero_grad(set_to_none=True)
        ((self.net(x, t) - x) ** 2).mean().backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()


def main():
    torch.set_num_threads(int(sys.argv[1]))
    timers = {}
    for line in sys.stdin:
        request = json.loads(line)
        job = request.pop("job")
        if job == "version":
            answer = {"version": torch.__version__}
        elif job == "build":
            timers = {layout: Timer(layout, **request) for layout in ("first", "last")}
            answer = {"parameters": timers["first"].parameters}
        else:
            seconds, cpu = timers[request.pop("layout")].seconds(job, **request)
            answer = {"seconds": seconds, "cpu": cpu}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
