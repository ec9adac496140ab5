#!/usr/bin/env python3
"""Writes tests/golden/resnet.h5: a model with a ModifiedResNet image tower, computed by the reference implementation.

    python3 scripts/make_golden_resnet.py [--output tests/golden/resnet.h5]

Needs torch, cn_clip, h5py (pip). As scripts/make_golden_towers.py (whose layout it shares, group /main), in float64
from float32 weights, with what batch norm adds:
  step<K>/grads/<name>        of step 0 only
  step<K>/params/<name>       also the running statistics before step K
  step<K>/after/<name>        running statistics after the training-mode forward of step K
  step<K>/evaluation          image features (normalised) of batch K in evaluation mode, from step K's statistics
  frozen/{loss,image_features,grads/<name>}  batch 0 with the statistics of step 20 and frozen batch norm, weights of 20
  halves/{loss,grads/<name>}  batch 0, weights of step 0, each half of it normalised by its own statistics, the
                              loss over all of it: two micro-batches; halves/after/<name>: the average of the
                              running statistics that each half alone would leave"""
import argparse
import math

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from cn_clip.clip import model as reference

import make_golden_towers as towers

SIZES = dict(embed_dim=16, image_resolution=64, vision_layers=(1, 2, 1, 1), vision_width=4, vision_patch_size=None,
             vision_head_width=32, vocab_size=61, text_hidden_size=32, text_num_hidden_layers=1,
             text_num_attention_heads=2, text_intermediate_size=48, text_max_position_embeddings=16,
             text_type_vocab_size=2, context_length=8, batch=8)
TRAIN = dict(towers.TRAIN, beta2=0.999, eps=1e-8, lr=1e-4)
towers.TRAIN = TRAIN
STATISTICS = ("running_mean", "running_var")


def statistics(model):
    return {n: b for n, b in model.named_buffers() if n.endswith(STATISTICS)}


def values_of(model):
    """Parameters and running statistics in float32."""
    named = dict(towers.parameters(model)) | statistics(model)
    return {n: p.detach().float().numpy().copy() for n, p in named.items()}


def load(model, values):
    for name, p in (dict(towers.parameters(model)) | statistics(model)).items():
        p.data.copy_(torch.from_numpy(values[name]))


def randomise(model, rng):
    towers.randomise(model, rng)
    for name, b in statistics(model).items():
        value = rng.uniform(0.5, 2, b.shape) if name.endswith("var") else 0.3 * rng.standard_normal(b.shape)
        b.data.copy_(torch.from_numpy(value.astype(np.float32)))


def loss_of(model, image, text):
    logits = model.logit_scale.exp() * image @ text.t()
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def after_halves(model, pixels, weights):
    """Running statistics that move once, by the average of two micro-batches."""
    moved = []
    for piece in torch.from_numpy(pixels).double().chunk(2):
        load(model, weights)
        with torch.no_grad():
            model.encode_image(piece)
        moved.append({n: b.numpy().copy() for n, b in statistics(model).items()})
    return {n: (moved[0][n] + moved[1][n]) / 2 for n in moved[0]}


def evaluate(model, pixels, ids, parts=1):
    """Loss, features and gradients; the image tower sees `parts` equal pieces of the batch one after the other."""
    x, t = torch.from_numpy(pixels).to(model.dtype), torch.from_numpy(ids).long()
    model.zero_grad()
    image_raw = torch.cat([model.encode_image(piece) for piece in x.chunk(parts)])
    text_raw = model.encode_text(t)
    image, text = F.normalize(image_raw, dim=-1), F.normalize(text_raw, dim=-1)
    loss = loss_of(model, image, text)
    loss.backward()
    out = dict(loss=loss, image_raw=image_raw, text_raw=text_raw, image_features=image, text_features=text)
    return {k: v.detach().double().numpy() for k, v in out.items()}, \
        {n: p.grad.double().numpy().copy() for n, p in towers.parameters(model)}


def freeze_statistics(model):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def write_all(group, values):
    for name, value in values.items():
        group.create_dataset(name, data=np.asarray(value, np.float32))


def worst(grads32, grads):
    """The measure of the tests, as in make_golden_towers."""
    total = math.sqrt(sum(np.linalg.norm(g) ** 2 for g in grads.values()))
    return max((max(0.0, np.linalg.norm(grads32[n] - g) - 1e-7 * total) / (np.linalg.norm(g) + 1e-300), n)
               for n, g in grads.items())


def compare(what, single, truth, pixels, ids, weights, **how):
    """(values, gradients) of the float64 model; prints how far the reference's own float32 run is from them."""
    load(truth, weights)
    load(single, weights)
    values, grads = evaluate(truth, pixels, ids, **how)
    values32, grads32 = evaluate(single, pixels, ids, **how)
    d, name = worst(grads32, grads)
    features = towers.deviation(values32["image_raw"], values["image_raw"], 0)
    print(f"{what}: float32 reference against float64: features {features:.1e}, gradients {d:.1e} ({name}); "
          f"loss {values['loss']:.4f}")
    return values, grads


def write_step(group, truth, single, weights, pixels, ids):
    values, grads = compare(group.name, single, truth, pixels, ids, weights)
    write_all(group, values)
    write_all(group, {f"params/{n}": v for n, v in weights.items()})
    if group.name.endswith("step0"):
        write_all(group, {f"grads/{n}": v for n, v in grads.items()})
    write_all(group, {f"after/{n}": v.numpy() for n, v in statistics(truth).items()})
    load(truth, weights)
    truth.eval()
    with torch.no_grad():
        features = F.normalize(truth.encode_image(torch.from_numpy(pixels).double()), dim=-1)
    truth.train()
    group.create_dataset("evaluation", data=features.float().numpy())


def train(model, pixels, ids, keep):
    optimizer, losses, kept = towers.optimizer_of(model), [], {}
    for step in range(TRAIN["steps"] + 1):
        if step in keep:
            kept[step] = values_of(model)
        if step == TRAIN["steps"]:
            return losses, kept
        values, _ = evaluate(model, pixels[step], ids[step])
        for g in optimizer.param_groups:
            g["lr"] = towers.learning_rate(step)
        optimizer.step()
        model.logit_scale.data.clamp_(TRAIN["logit_scale_min"], TRAIN["logit_scale_max"])
        losses.append(float(values["loss"]))


def build(dtype):
    kwargs = {k: v for k, v in SIZES.items() if k not in ("context_length", "batch")}
    model = reference.CLIP(**kwargs, text_attention_probs_dropout_prob=0.0, text_hidden_act="gelu",
                           text_hidden_dropout_prob=0.0, text_initializer_range=0.02)
    return model.to(dtype).train()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="tests/golden/resnet.h5")
    parser.add_argument("--seed", type=int, default=4)  # one whose float32 run stays near the truth
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    truth, single = build(torch.float64), build(torch.float32)
    randomise(truth, rng)
    start = values_of(truth)
    half = SIZES | {"image_resolution": SIZES["image_resolution"] // 2}  # squares of 2 x 2 pixels: they compress
    pixels, ids = towers.batches(half, TRAIN["steps"] + 1, rng)
    pixels = pixels.repeat(2, axis=-1).repeat(2, axis=-2)
    load(single, start)
    losses, kept = train(truth, pixels, ids, (0, TRAIN["steps"]))
    losses32, _ = train(single, pixels, ids, ())
    apart = np.abs(np.array(losses32) / np.array(losses) - 1).max()
    print(f"losses {losses[0]:.4f} … {losses[-1]:.4f}; float32 reference's own deviation {apart:.1e}")
    with h5py.File(args.output, "w", libver=("earliest", "v108")) as file:
        file.attrs["made_by"] = "scripts/make_golden_resnet.py"
        file.attrs["torch"] = str(torch.__version__)
        group = file.create_group("main")
        sizes = {k: v for k, v in SIZES.items() if v is not None}
        for key, value in {**sizes, **TRAIN, "heads": SIZES["vision_width"] * 32 // SIZES["vision_head_width"],
                           "n_parameters": len(towers.parameters(truth)),
                           "reference_f32_losses_deviation": apart}.items():
            group.attrs[key] = value
        group.create_dataset("batch/pixels", data=pixels, chunks=(1, *pixels.shape[1:]), compression="gzip",
                             compression_opts=9, shuffle=True)
        group.create_dataset("batch/ids", data=ids)
        group.create_dataset("losses", data=np.array(losses))
        group.create_dataset("lrs", data=np.array([towers.learning_rate(s) for s in range(TRAIN["steps"])]))
        for step in (0, TRAIN["steps"]):
            write_step(group.create_group(f"step{step}"), truth, single, kept[step], pixels[step], ids[step])
        values, grads = compare("halves", single, truth, pixels[0], ids[0], kept[0], parts=2)
        halves = group.create_group("halves")
        write_all(halves, {"loss": values["loss"]} | {f"grads/{n}": g for n, g in grads.items()})
        write_all(halves, {f"after/{n}": v for n, v in after_halves(truth, pixels[0], kept[0]).items()})
        freeze_statistics(truth)
        freeze_statistics(single)
        last = kept[TRAIN["steps"]]
        values, grads = compare("frozen", single, truth, pixels[0], ids[0], last)
        frozen = group.create_group("frozen")
        write_all(frozen, {k: values[k] for k in ("loss", "image_features")} |
                  {f"grads/{n}": g for n, g in grads.items()})


if __name__ == "__main__":
    main()
