#!/usr/bin/env python3
"""The peer of the training-step benchmark: PyTorch, eager, with the reference implementation's model class.

Times whole steps (forward, contrastive loss, backward, AdamW) of ViT-B-16 + RoBERTa-base, or RN50 + RBT3, on random
pixels and token ids and prints one JSON line: median step seconds, pairs/s, achieved GFLOP/s, peak resident memory.

    python3 scripts/bench/peer_step.py --threads 2
    python3 scripts/bench/peer_step.py --threads 2 --bf16

Needs torch and cn_clip (pip). FLOPs are counted as 3 x the forward products (linears, attention, patches);
the attention of padded positions counts, because the peer computes it."""
import argparse
import json
import os
import platform
import resource
import statistics
import time

MODELS = {  # image: layers, width, patch, head width, resolution; text: layers, width, heads, ffn; embed dim
    "ViT-B-32": (12, 768, 32, 64, 224, 12, 768, 12, 3072, 512),
    "ViT-B-16": (12, 768, 16, 64, 224, 12, 768, 12, 3072, 512),
    "ViT-L-14": (24, 1024, 14, 64, 224, 12, 768, 12, 3072, 768),
    "RN50": ((3, 4, 6, 3), 64, None, 64, 224, 3, 768, 12, 3072, 1024),
}


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", choices=sorted(MODELS), default="ViT-B-16")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--context", type=int, default=52)
    p.add_argument("--text_length", type=int, default=0, help="tokens a text, 0: the whole context")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--warmup", type=int, default=1)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--bf16", action="store_true", help="torch.autocast to bfloat16 around the forward pass")
    p.add_argument("--channels_last", action="store_true", help="images and convolutions in (B,H,W,C) order")
    p.add_argument("--dropout", type=float, default=0.1, help="of the text tower, as the original trains")
    p.add_argument("--optimizer", choices=["default", "fused", "foreach"], default="fused", help="AdamW's kernel")
    return p.parse_args()


def build(args):
    from cn_clip.clip.model import CLIP
    vl, vw, vp, hw, res, tl, tw, th, tf, dim = MODELS[args.model]
    return CLIP(dim, res, vl, vw, vp, 21128, args.dropout, "gelu", args.dropout, tw, 0.02, tf, 512, th, tl, 2,
                vision_head_width=hw)


def resnet_flops(stages, width, res, dim):
    """The ModifiedResNet's convolutions and its attention pool with one query."""
    side, half = res // 2, width // 2
    flops = 2 * 9 * side * side * (3 * half + half * half + half * width)
    side, inner = res // 4, width
    for stage, blocks in enumerate(stages):
        w = width << stage
        for block in range(blocks):
            before, side = side, side // 2 if stage and not block else side
            flops += 2 * (before ** 2 * (inner * w + 9 * w * w) + side ** 2 * 4 * w * w)
            flops += 0 if block else 2 * side ** 2 * inner * 4 * w
            inner = 4 * w
    return flops + 2 * inner * ((side ** 2 + 1) * 2 * inner + inner + dim)


def forward_flops(args):
    """Multiply-adds x 2 of one pair's forward pass."""
    vl, vw, vp, _, res, tl, tw, _, tf, dim = MODELS[args.model]
    t, c = 0 if vp is None else (res // vp) ** 2 + 1, args.context
    grid = t - 1
    image = resnet_flops(vl, vw, res, dim) if vp is None else grid * 2 * 3 * vp * vp * vw + vl * (t * 24 * vw * vw + 4 * t * t * vw) + 2 * vw * dim
    text = tl * (c * (8 * tw * tw + 4 * tw * tf) + 4 * c * c * tw) + 2 * tw * dim
    return image + text


def main():
    args = parse()
    import torch
    import torch.nn.functional as F
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build(args).train()
    skip = lambda n: any(part in n for part in ("bn", "ln", "bias", "logit_scale"))
    named = [(n, p) for n, p in model.named_parameters() if "pooler" not in n]
    extra = {} if args.optimizer == "default" else {args.optimizer: True}
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if skip(n)], "weight_decay": 0.0},
                                   {"params": [p for n, p in named if not skip(n)], "weight_decay": 0.2}],
                                  lr=5e-5, betas=(0.9, 0.98), eps=1e-6, **extra)
    res = MODELS[args.model][4]
    pixels = torch.randn(args.batch, 3, res, res)
    if args.channels_last:
        model, pixels = (x.to(memory_format=torch.channels_last) for x in (model, pixels))
    ids = torch.randint(106, 21128, (args.batch, args.context))
    length = args.text_length or args.context
    ids[:, 0], ids[:, length - 1] = 101, 102
    ids[:, length:] = 0
    target = torch.arange(args.batch)

    parts = {"forward": [], "backward": [], "optimizer": []}
    seconds, cpu, loss = [], [], None
    for step in range(args.warmup + args.steps):
        t0, c0 = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            image, text, scale = model(pixels, ids)
        logits = scale.float() * image.float() @ text.float().t()
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        t3 = time.perf_counter()
        if step >= args.warmup:
            seconds.append(t3 - t0)
            cpu.append(time.process_time() - c0)
            for name, value in zip(parts, (t1 - t0, t2 - t1, t3 - t2)):
                parts[name].append(value)
    median = statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blas = [line.strip(" -") for line in torch.__config__.show().split("\n") if "Math Kernel" in line or "MKL-DNN" in line]
    print(json.dumps({
        "peer": "pytorch " + torch.__version__, "model": args.model, "batch": args.batch, "context": args.context,
        "text_length": length, "precision": "bf16 autocast" if args.bf16 else "f32", "threads": args.threads,
        "channels_last": args.channels_last, "optimizer": args.optimizer, "dropout": args.dropout,
        "step_seconds": round(median, 4), "step_min": round(min(seconds), 4), "step_max": round(max(seconds), 4),
        **{name + "_seconds": round(statistics.median(v), 4) for name, v in parts.items()},
        "cpu_seconds_min": round(min(cpu), 4),  # all threads; on a busy machine the fairer figure
        "pairs_per_second": round(args.batch / median, 3),
        "gflops": round(3 * args.batch * forward_flops(args) / median / 1e9, 1),
        "peak_rss_mib": peak // 1024, "rss_after_import_mib": imported // 1024, "loss": round(loss.item(), 4),
        "cpu": torch.backends.cpu.get_cpu_capability(), "blas": blas, "machine": platform.machine(),
        "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
