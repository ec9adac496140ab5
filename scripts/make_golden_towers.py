#!/usr/bin/env python3
"""Writes tests/golden/towers.h5: towers, loss, every gradient and 20 AdamW steps of the reference implementation.

    python3 scripts/make_golden_towers.py [--output tests/golden/towers.h5]

Needs torch, cn_clip, h5py (pip). Everything is computed in float64 from float32 weights, so the stored values are
the truth to float32; the float32 run of the same model is compared with it and its deviation printed and stored
(attribute `reference_f32_deviation`), so that a test can tell rounding from error.

Layout (two models, /main and /odd; names of parameters as in original checkpoints, without the BERT pooler):
  attributes of the model group: every size, the optimizer's settings
  batch/pixels (steps, B, 3, R, R) f32, normalised     batch/ids (steps, B, context) i32, 0-padded
  step<K>/params/<name>, step<K>/grads/<name>          from these weights on batch K
  step<K>/{image,text}_features, {image,text}_raw      L2-normalised, and before normalisation
  step<K>/loss
  losses (20), lrs (20)                                losses of the free-running AdamW steps (main only)
step<K>/params are the weights *before* step K is taken; K is 0, 10, 20 for /main and 0 for /odd."""
import argparse
import math

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from cn_clip.clip import model as reference

MAIN = dict(embed_dim=16, image_resolution=32, vision_layers=2, vision_width=32, vision_patch_size=8,
            vision_head_width=16, vocab_size=101, text_hidden_size=32, text_num_hidden_layers=2,
            text_num_attention_heads=2, text_intermediate_size=64, text_max_position_embeddings=64,
            text_type_vocab_size=2, context_length=12, batch=8)
ODD = dict(embed_dim=11, image_resolution=21, vision_layers=1, vision_width=24, vision_patch_size=7,
           vision_head_width=8, vocab_size=53, text_hidden_size=20, text_num_hidden_layers=3,
           text_num_attention_heads=5, text_intermediate_size=36, text_max_position_embeddings=9,
           text_type_vocab_size=2, context_length=7, batch=5)
TRAIN = dict(steps=20, lr=3e-4, warmup=5, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.2,
             logit_scale_min=0.0, logit_scale_max=4.6052)


def build(sizes, dtype):
    kwargs = {k: v for k, v in sizes.items() if k not in ("context_length", "batch")}
    model = reference.CLIP(**kwargs, text_attention_probs_dropout_prob=0.0, text_hidden_act="gelu",
                           text_hidden_dropout_prob=0.0, text_initializer_range=0.02)
    if dtype == torch.float64:  # the reference's LayerNorm drops to float32 by itself
        for module in model.modules():
            if isinstance(module, reference.LayerNorm):
                module.forward = torch.nn.LayerNorm.forward.__get__(module)
    return model.to(dtype).train()


def randomise(model, rng):
    """Weights far from initialisation: gains around 1, biases and all else visibly non-zero, rounded to f32."""
    for name, p in parameters(model):
        if name == "logit_scale":
            value = np.array(math.log(1 / 0.07))
        elif p.ndim == 1 and name.endswith("weight"):
            value = 1 + 0.3 * rng.standard_normal(p.shape)
        elif p.ndim == 1:
            value = 0.3 * rng.standard_normal(p.shape)
        else:
            fan_in = p.shape[1:].numel() if p.ndim == 4 else p.shape[-1]
            value = rng.standard_normal(p.shape) * (0.5 if "embedding" in name else 1.2 * fan_in ** -0.5)
        p.data.copy_(torch.from_numpy(value.astype(np.float32)))


def parameters(model):
    return [(n, p) for n, p in model.named_parameters() if "pooler" not in n]


def copy_weights(target, source):
    source = dict(parameters(source))
    for name, p in parameters(target):
        p.data.copy_(source[name].data.float())


def batches(sizes, count, rng):
    """Pixels on a grid of 1/8 (they compress, nothing else); texts of every length, the first one only
    [CLS][SEP], the second filling the context. The last two ids of the vocabulary are [CLS] and [SEP]."""
    b, r, c, vocab = (sizes[k] for k in ("batch", "image_resolution", "context_length", "vocab_size"))
    pixels = np.clip(np.round(rng.standard_normal((count, b, 3, r, r)) * 8) / 8, -2, 2).astype(np.float32)
    ids = np.zeros((count, b, c), np.int32)
    for text in ids.reshape(-1, c):
        words = rng.integers(0, c - 1)
        text[1:1 + words] = rng.integers(1, vocab - 2, words)
        text[0], text[1 + words] = vocab - 2, vocab - 1
    for batch in ids:
        batch[0] = 0
        batch[0, :2] = vocab - 2, vocab - 1
        batch[1, 1:-1] = rng.integers(1, vocab - 2, c - 2)
        batch[1, 0], batch[1, -1] = vocab - 2, vocab - 1
    return pixels, ids


def evaluate(model, pixels, ids):
    """Loss, features and gradients of one batch."""
    dtype = model.dtype
    x, t = torch.from_numpy(pixels).to(dtype), torch.from_numpy(ids).long()
    model.zero_grad()
    image_raw, text_raw = model.encode_image(x), model.encode_text(t)
    image, text = F.normalize(image_raw, dim=-1), F.normalize(text_raw, dim=-1)
    logits = model.logit_scale.exp() * image @ text.t()
    target = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
    loss.backward()
    out = dict(loss=loss, image_raw=image_raw, text_raw=text_raw, image_features=image, text_features=text)
    return {k: v.detach().double().numpy() for k, v in out.items()}, \
        {n: p.grad.double().numpy().copy() for n, p in parameters(model)}


def optimizer_of(model):
    skip = lambda n: any(part in n for part in ("bn", "ln", "bias", "logit_scale"))
    named = parameters(model)
    return torch.optim.AdamW([{"params": [p for n, p in named if skip(n)], "weight_decay": 0.0},
                              {"params": [p for n, p in named if not skip(n)], "weight_decay": TRAIN["weight_decay"]}],
                             lr=TRAIN["lr"], betas=(TRAIN["beta1"], TRAIN["beta2"]), eps=TRAIN["eps"])


def learning_rate(step):
    if step < TRAIN["warmup"]:
        return TRAIN["lr"] * (step + 1) / TRAIN["warmup"]
    done = (step - TRAIN["warmup"]) / (TRAIN["steps"] - TRAIN["warmup"])
    return TRAIN["lr"] * 0.5 * (1 + math.cos(math.pi * done))


def train(model, pixels, ids, keep):
    """The free-running steps; returns the losses and the float32 weights before each step in `keep`."""
    optimizer, losses, kept = optimizer_of(model), [], {}
    for step in range(TRAIN["steps"] + 1):
        if step in keep:
            kept[step] = {n: p.detach().float().numpy().copy() for n, p in parameters(model)}
        if step == TRAIN["steps"]:
            break
        values, _ = evaluate(model, pixels[step], ids[step])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        model.logit_scale.data.clamp_(TRAIN["logit_scale_min"], TRAIN["logit_scale_max"])
        losses.append(float(values["loss"]))
    return losses, kept


def deviation(got, want, floor):
    return float(np.linalg.norm(got - want) / (np.linalg.norm(want) + floor + 1e-300))


def write_step(group, truth, single, weights, pixels, ids):
    """One stepK group; returns how far the reference's own float32 run is from the float64 truth."""
    for model in (truth, single):
        for name, p in parameters(model):
            p.data.copy_(torch.from_numpy(weights[name]))
    values, grads = evaluate(truth, pixels, ids)
    values32, grads32 = evaluate(single, pixels, ids)
    for name, value in values.items():
        group.create_dataset(name, data=value.astype(np.float32))
    total = math.sqrt(sum(np.linalg.norm(g) ** 2 for g in grads.values()))
    # the measure of the tests: |d| <= tol (|g|) + 1e-7 |all g|, so tol = (|d| - 1e-7 |all g|) / |g|
    worst, worst_name = 0.0, ""
    for name, value in grads.items():
        group.create_dataset("params/" + name, data=weights[name])
        group.create_dataset("grads/" + name, data=value.astype(np.float32))
        d = max(0.0, np.linalg.norm(grads32[name] - value) - 1e-7 * total) / (np.linalg.norm(value) + 1e-300)
        if d > worst:
            worst, worst_name = d, name
    features = max(deviation(values32[k], values[k], 0) for k in ("image_raw", "text_raw"))
    loss = abs(values32["loss"] - values["loss"]) / abs(values["loss"])
    group.attrs["reference_f32_deviation"] = np.array([features, loss, worst])  # features, loss, gradients
    print(f"{group.name}: float32 reference against float64: features {features:.1e}, loss {loss:.1e}, "
          f"gradients {worst:.1e} ({worst_name}); |all gradients| {total:.3g}, loss {values['loss']:.4f}")


def write_model(file, name, sizes, seed, steps):
    rng = np.random.default_rng(seed)
    truth, single = build(sizes, torch.float64), build(sizes, torch.float32)
    randomise(truth, rng)
    copy_weights(single, truth)
    keep = [0, steps // 2, steps] if steps else [0]
    pixels, ids = batches(sizes, steps + 1, rng)
    group = file.create_group(name)
    for key, value in {**sizes, **TRAIN, "heads": sizes["vision_width"] // sizes["vision_head_width"],
                       "n_parameters": len(parameters(truth)), "cls_id": sizes["vocab_size"] - 2,
                       "sep_id": sizes["vocab_size"] - 1}.items():
        group.attrs[key] = value
    compress = dict(compression="gzip", compression_opts=9, shuffle=True)
    group.create_dataset("batch/pixels", data=pixels, chunks=(1, *pixels.shape[1:]), **compress)
    group.create_dataset("batch/ids", data=ids, chunks=(1, *ids.shape[1:]), **compress)
    kept = {0: {n: p.detach().float().numpy().copy() for n, p in parameters(truth)}}
    if steps:
        losses, kept = train(truth, pixels, ids, keep)
        losses32, kept32 = train(single, pixels, ids, keep)
        apart = np.abs(np.array(losses32) / np.array(losses) - 1)
        group.create_dataset("losses", data=np.array(losses))
        group.create_dataset("lrs", data=np.array([learning_rate(s) for s in range(steps)]))
        group.attrs["reference_f32_losses_deviation"] = apart.max()
        weights = max(deviation(kept32[steps][n], kept[steps][n], 0) for n in kept[steps])
        print(f"/{name}: losses {losses[0]:.4f} … {losses[-1]:.4f}; float32 reference's own deviation over "
              f"{steps} steps: losses {apart.max():.1e}, final weights {weights:.1e}; logit_scale "
              f"{kept[steps]['logit_scale']:.4f}")
    for step in keep:
        write_step(group.create_group(f"step{step}"), truth, single, kept[step], pixels[step], ids[step])
    pad = truth.bert.embeddings.word_embeddings.weight.grad[0]
    assert not pad.any(), "the [PAD] row must have no gradient"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="tests/golden/towers.h5")
    parser.add_argument("--seed", type=int, default=20261123)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    with h5py.File(args.output, "w", libver=("earliest", "v108")) as file:
        file.attrs["made_by"] = "scripts/make_golden_towers.py"
        file.attrs["torch"] = str(torch.__version__)
        file.attrs["seed"] = args.seed
        write_model(file, "main", MAIN, args.seed, TRAIN["steps"])
        write_model(file, "odd", ODD, args.seed + 1, 0)


if __name__ == "__main__":
    main()
