#!/usr/bin/env python3
"""The peer of the GPU training-step benchmark: the reference model's architecture in PyTorch, as one would write it
today: scaled_dot_product_attention, bf16 autocast, fused AdamW, channels_last for RN50; eager or torch.compile.

Times whole steps (pixels as uint8 to the device, normalised there; forward, contrastive loss, backward, AdamW) of
random pairs and prints one JSON line. Needs torch alone.

    python3 scripts/bench/step_gpu_peer.py --model ViT-B-16 --batch 128
    python3 scripts/bench/step_gpu_peer.py --model ViT-B-16 --batch 128 --compile
    python3 scripts/bench/step_gpu_peer.py --model ViT-L-14 --batch 0            # the largest batch that fits
    python3 scripts/bench/step_gpu_peer.py --device cpu --model tiny --batch 4   # that it runs at all
"""
import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

# image: layers, width, patch (None: ResNet), heads, resolution; text: layers, width, heads, ffn; embed dim
MODELS = {
    "tiny": (2, 64, 8, 2, 32, 2, 64, 2, 128, 32),
    "tiny-rn": ((1, 1, 1, 1), 8, None, 4, 64, 1, 64, 2, 128, 32),
    "RN50": ((3, 4, 6, 3), 64, None, 32, 224, 3, 768, 12, 3072, 1024),
    "ViT-B-16": (12, 768, 16, 12, 224, 12, 768, 12, 3072, 512),
    "ViT-L-14": (24, 1024, 14, 16, 224, 12, 768, 12, 3072, 768),
    "ViT-L-14-336": (24, 1024, 14, 16, 336, 12, 768, 12, 3072, 768),
    "ViT-H-14": (32, 1280, 14, 16, 224, 24, 1024, 16, 4096, 1024),
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ImageBlock(nn.Module):
    """x + attention(norm x), x + mlp(norm x), QuickGELU."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, w))
        h = self.fc(self.ln_2(x))
        return x + self.proj(h * torch.sigmoid(1.702 * h))


class Vit(nn.Module):
    def __init__(self, layers, width, patch, heads, resolution, embed):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.cls = nn.Parameter(width ** -0.5 * torch.randn(width))
        self.positions = nn.Parameter(width ** -0.5 * torch.randn((resolution // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(ImageBlock(width, heads) for _ in range(layers))
        self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed))

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], 1) + self.positions.to(x.dtype)
        x = self.ln_pre(x)
        for block in self.blocks:
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class Bottleneck(nn.Module):
    """1x1, 3x3, average pool instead of a stride, 1x1; the shortcut pools too."""

    def __init__(self, inner, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut = None
        if stride > 1 or inner != 4 * width:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                                          nn.Conv2d(inner, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.pool(F.relu(self.bn2(self.conv2(y))))
        return F.relu(self.bn3(self.conv3(y)) + (self.shortcut(x) if self.shortcut else x))


class ResNet(nn.Module):
    def __init__(self, stages, width, heads, resolution, embed):
        super().__init__()
        half = width // 2
        self.stem = nn.ModuleList([nn.Conv2d(3, half, 3, 2, 1, bias=False), nn.Conv2d(half, half, 3, 1, 1, bias=False),
                                   nn.Conv2d(half, width, 3, 1, 1, bias=False)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(half), nn.BatchNorm2d(half), nn.BatchNorm2d(width)])
        blocks, inner = [], width
        for stage, count in enumerate(stages):
            for i in range(count):
                blocks.append(Bottleneck(inner, width << stage, 2 if stage and not i else 1))
                inner = 4 * (width << stage)
        self.blocks = nn.Sequential(*blocks)
        self.heads = heads
        self.positions = nn.Parameter(inner ** -0.5 * torch.randn((resolution // 32) ** 2 + 1, inner))
        self.q, self.kv, self.c = nn.Linear(inner, inner), nn.Linear(inner, 2 * inner), nn.Linear(inner, embed)

    def forward(self, x):
        for conv, norm in zip(self.stem, self.norms):
            x = F.relu(norm(conv(x)))
        x = self.blocks(F.avg_pool2d(x, 2)).flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positions.to(x.dtype)
        b, t, w = x.shape
        q = self.q(x[:, :1]).view(b, 1, self.heads, -1).transpose(1, 2)
        k, v = self.kv(x).view(b, t, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.c(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, w))


class TextBlock(nn.Module):
    """BERT's: norms behind the sums, erf GELU, dropout."""

    def __init__(self, width, heads, ffn, dropout):
        super().__init__()
        self.heads, self.p = heads, dropout
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.ln_1, self.ln_2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, mask):
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.p if self.training else 0.0)
        x = self.ln_1(x + self.drop(self.out(a.transpose(1, 2).reshape(b, t, w))))
        return self.ln_2(x + self.drop(self.down(F.gelu(self.up(x)))))


class Bert(nn.Module):
    def __init__(self, layers, width, heads, ffn, embed, dropout, vocabulary=21128):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(512, width)
        self.types = nn.Embedding(2, width)
        self.norm, self.drop = nn.LayerNorm(width, eps=1e-12), nn.Dropout(dropout)
        self.blocks = nn.ModuleList(TextBlock(width, heads, ffn, dropout) for _ in range(layers))
        self.proj = nn.Parameter(width ** -0.5 * torch.randn(width, embed))
        for table in (self.words, self.positions, self.types):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids):
        x = self.words(ids) + self.positions.weight[:ids.shape[1]] + self.types.weight[0]
        x = self.drop(self.norm(x))
        mask = (ids != 0)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        return x[:, 0] @ self.proj


class Clip(nn.Module):
    def __init__(self, name, dropout):
        super().__init__()
        il, iw, patch, ih, resolution, tl, tw, th, ffn, embed = MODELS[name]
        self.image = (ResNet(il, iw, ih, resolution, embed) if patch is None
                      else Vit(il, iw, patch, ih, resolution, embed))
        self.text = Bert(tl, tw, th, ffn, embed, dropout)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels, ids):
        """pixels uint8 (B,R,R,3); the loss."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        image, text = F.normalize(self.image(x).float(), dim=1), F.normalize(self.text(ids).float(), dim=1)
        with torch.autocast(pixels.device.type, enabled=False):
            logits = self.logit_scale.exp() * image @ text.t()
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=list(MODELS), default="ViT-B-16")
    p.add_argument("--batch", type=int, default=128, help="0: the largest that fits")
    p.add_argument("--step_to", type=int, default=32, help="with --batch 0: batches are multiples of this")
    p.add_argument("--context", type=int, default=52)
    p.add_argument("--text_length", type=int, default=0, help="tokens a text; 0: the whole context")
    p.add_argument("--device", default="cuda")
    p.add_argument("--precision", choices=["bf16", "f32", "tf32"], default="bf16")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--warmup", type=int, default=3)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--most", type=int, default=4096, help="with --batch 0: no larger batch is tried")
    return p.parse_args()


class Bench:
    def __init__(self, args):
        torch.manual_seed(1)
        self.args, self.device = args, torch.device(args.device)
        self.room = self.free_bytes()  # before anything is taken, as tuwen counts
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
        torch.backends.cudnn.benchmark = True
        model = Clip(args.model, args.dropout).to(self.device).train()
        self.resnet = MODELS[args.model][2] is None
        if self.resnet:
            model = model.to(memory_format=torch.channels_last)
        plain = [p for n, p in model.named_parameters() if p.ndim < 2]
        decayed = [p for n, p in model.named_parameters() if p.ndim >= 2]
        self.optimizer = torch.optim.AdamW([{"params": plain, "weight_decay": 0.0},
                                            {"params": decayed, "weight_decay": 0.2}],
                                           lr=1e-5, betas=(0.9, 0.98), eps=1e-6, fused=True)
        self.scale = model.logit_scale
        self.parameters = sum(p.numel() for p in model.parameters())
        self.model = torch.compile(model) if args.compile else model

    def free_bytes(self):
        return torch.cuda.mem_get_info()[0] if self.device.type == "cuda" else 0

    def data(self, batch):
        a, r = self.args, MODELS[self.args.model][4]
        pixels = torch.randint(0, 256, (batch, r, r, 3), dtype=torch.uint8)
        ids = torch.randint(106, 21128, (batch, a.context))
        length = a.text_length or a.context
        ids[:, 0], ids[:, length - 1] = 101, 102
        ids[:, length:] = 0
        cuda = self.device.type == "cuda"
        return (pixels.pin_memory(), ids.pin_memory()) if cuda else (pixels, ids)

    def step(self, pixels, ids):
        pixels, ids = pixels.to(self.device, non_blocking=True), ids.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.precision == "bf16"):
            loss = self.model(pixels, ids)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.scale.clamp_(0, 4.6052)
        return loss.detach()

    def now(self):
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, a, b):
        return b - a if self.device.type != "cuda" else a.elapsed_time(b) / 1000

    def run(self, batch, warmup, steps):
        pixels, ids = self.data(batch)
        for _ in range(warmup):
            loss = self.step(pixels, ids)
        marks = [self.now()]
        for _ in range(steps):
            loss = self.step(pixels, ids)
            marks.append(self.now())
        value = loss.item()
        return [self.seconds(a, b) for a, b in zip(marks, marks[1:])], value

    def fits(self, batch):
        try:
            self.run(batch, 1, 1)
            return True
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def largest(self):
        """By doubling, then by halving the gap: a multiple of step_to."""
        unit, good, bad = self.args.step_to, 0, None
        at = unit
        while bad is None and at <= self.args.most:
            if self.fits(at):
                good, at = at, at * 2
            else:
                bad = at
        while bad is not None and bad - good > max(unit, good // 16):
            at = (good + bad) // 2 // unit * unit
            if at <= good:
                break
            if self.fits(at):
                good = at
            else:
                bad = at
        return good


def main():
    args = parse()
    bench = Bench(args)
    cuda = bench.device.type == "cuda"
    batch = args.batch or (bench.largest() if cuda else 0)
    if batch == 0:
        print(json.dumps({"peer": "pytorch", "model": args.model, "error": "no batch fits, or none was given"}))
        sys.exit(1)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds, loss = bench.run(batch, args.warmup, args.steps)
    median = statistics.median(seconds)
    print(json.dumps({
        "peer": "pytorch " + torch.__version__, "mode": "compile" if args.compile else "eager", "model": args.model,
        "batch": batch, "context": args.context, "text_length": args.text_length or args.context,
        "precision": args.precision, "device": torch.cuda.get_device_name() if cuda else "cpu",
        "parameters": bench.parameters, "step_ms": round(1e3 * median, 3), "step_ms_min": round(1e3 * min(seconds), 3),
        "pairs_per_s": round(batch / median, 2), "loss": round(loss, 4),
        "taken_mb": round((bench.room - bench.free_bytes()) / 1e6, 1) if cuda else None,
        "allocated_mb": round(torch.cuda.max_memory_allocated() / 1e6, 1) if cuda else None,
        "reserved_mb": round(torch.cuda.max_memory_reserved() / 1e6, 1) if cuda else None}))


if __name__ == "__main__":
    main()
