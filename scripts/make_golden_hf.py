#!/usr/bin/env python3
"""Writes tests/golden/hf: tiny ChineseCLIPModels as Hugging Face folders, and what they are in the original code.

    python3 scripts/make_golden_hf.py [--output tests/golden/hf]

Needs torch, transformers, safetensors, cn_clip, h5py (pip).
  single/    saved by transformers: model.safetensors (f32), config.json, preprocessor, tokenizer
  sharded/   the same model in f16: three shards and model.safetensors.index.json
  bin/       pytorch_model.bin as older versions wrote it, with position ids and a pooler
  bin_sharded/  two .bin shards and pytorch_model.bin.index.json
  original.h5   the same weights by their names in the original code, f32 (weights are on the f16 grid, so all
                folders hold the same values); attributes: the sizes
  types.safetensors   every type that is known, written by the reference's save_file
That the values under original names are the same model is checked here by features: the reference code with them
against transformers with its own."""
import argparse
import collections
import json
import pathlib
import shutil

import h5py
import numpy as np
import torch
from cn_clip.clip import model as reference
from safetensors.torch import save_file
from transformers import ChineseCLIPConfig, ChineseCLIPImageProcessor, ChineseCLIPModel

TEXT = dict(vocab_size=60, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=12, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
IMAGE = dict(hidden_size=24, intermediate_size=96, num_hidden_layers=2, num_attention_heads=3, image_size=12,
             patch_size=4)
EMBED = 10


def original_names(hf):
    """The original code's state dict, name by name, from that of ChineseCLIPModel."""
    out = collections.OrderedDict()
    out["visual.class_embedding"] = hf["vision_model.embeddings.class_embedding"]
    out["visual.positional_embedding"] = hf["vision_model.embeddings.position_embedding.weight"]
    out["visual.conv1.weight"] = hf["vision_model.embeddings.patch_embedding.weight"]
    out["visual.proj"] = hf["visual_projection.weight"].T
    out["text_projection"] = hf["text_projection.weight"].T
    out["logit_scale"] = hf["logit_scale"]
    for kind in "weight", "bias":
        out[f"visual.ln_pre.{kind}"] = hf[f"vision_model.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = hf[f"vision_model.post_layernorm.{kind}"]
        for layer in range(IMAGE["num_hidden_layers"]):
            a, b = f"visual.transformer.resblocks.{layer}.", f"vision_model.encoder.layers.{layer}."
            out[f"{a}attn.in_proj_{kind}"] = torch.cat([hf[f"{b}self_attn.{x}_proj.{kind}"] for x in "qkv"])
            for x, y in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                         ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                out[f"{a}{x}.{kind}"] = hf[f"{b}{y}.{kind}"]
    out.update(("bert." + name[len("text_model."):], t) for name, t in hf.items() if name.startswith("text_model."))
    return out


def make_model():
    torch.manual_seed(3)
    model = ChineseCLIPModel(ChineseCLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=EMBED))
    for name, p in model.named_parameters():
        value = torch.randn(p.shape) * (0.3 if p.ndim else 0)
        if p.ndim == 1 and "norm" in name.lower() and name.endswith("weight"):
            value += 1
        p.data = (value if p.ndim else torch.tensor(2.6592)).half().float()
    return model.eval()


@torch.no_grad()
def check(model, state):
    """Both implementations give the same features."""
    theirs = reference.CLIP(EMBED, IMAGE["image_size"], IMAGE["num_hidden_layers"], IMAGE["hidden_size"],
                            IMAGE["patch_size"], TEXT["vocab_size"], 0.0, "gelu", 0.0, TEXT["hidden_size"], 0.02,
                            TEXT["intermediate_size"], TEXT["max_position_embeddings"], TEXT["num_attention_heads"],
                            TEXT["num_hidden_layers"], 2,
                            vision_head_width=IMAGE["hidden_size"] // IMAGE["num_attention_heads"]).eval()
    missing, extra = theirs.load_state_dict(state, strict=False)
    assert not extra and all("pooler" in name for name in missing), (missing, extra)
    pixels = torch.randn(3, 3, IMAGE["image_size"], IMAGE["image_size"])
    ids = torch.randint(1, TEXT["vocab_size"], (3, 7))
    pairs = ((theirs.encode_image(pixels), model.get_image_features(pixels).pooler_output),
             (theirs.encode_text(ids), model.get_text_features(ids).pooler_output))
    for a, b in pairs:
        assert a.shape == b.shape and (a - b).abs().max() < 1e-4 * b.abs().max(), (a, b)
        print("largest difference of features", float((a - b).abs().max()), "of", float(b.abs().max()))


def save_single(model, folder):
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("一只狗在雪地里跑人图文的红色汽车")
    words += list("abcdefghijklmnopqrstuvwxyz,.!?") + ["##a", "##b", "##c"]
    words = list(dict.fromkeys(words))[:TEXT["vocab_size"]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    side = {"height": IMAGE["image_size"], "width": IMAGE["image_size"]}
    ChineseCLIPImageProcessor(do_center_crop=False, size=side).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}\n')


def shard(names, count):
    names = sorted(names)
    return [names[i::count] for i in range(count)]


def save_shards(state, folder, count, pattern, index, save):
    folder.mkdir()
    where = {}
    for i, names in enumerate(shard(state, count)):
        file = pattern.format(i + 1, count)
        save({n: state[n] for n in names}, folder / file)
        where.update((n, file) for n in names)
    size = sum(t.numel() * t.element_size() for t in state.values())
    (folder / index).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2) + "\n")


def save_types(path):
    rng = np.random.default_rng(1)
    tensors = {}
    for i, t in enumerate((torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16,
                           torch.int32, torch.float32, torch.float64, torch.int64)):
        tensors[f"z{i}"] = torch.from_numpy(rng.integers(0, 2, (3, 5))).to(t)
        tensors[f"a{i}"] = torch.from_numpy(rng.integers(0, 2, (i,))).to(t)
    tensors['一 "quoted" \\ name'] = torch.tensor(1.5)
    save_file(tensors, path, metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--output", type=pathlib.Path, default=root / "tests/golden/hf")
    out = parser.parse_args().output
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model = make_model()
    state = model.state_dict()
    originals = original_names(state)
    check(model, originals)
    save_single(model, out / "single")
    half = {n: t.half() for n, t in state.items()}
    save_shards(half, out / "sharded", 3, "model-{:05d}-of-{:05d}.safetensors", "model.safetensors.index.json",
                lambda s, p: save_file(s, p, metadata={"format": "pt"}))
    old = dict(state)
    old["text_model.embeddings.position_ids"] = torch.arange(TEXT["max_position_embeddings"])[None]
    grid = IMAGE["image_size"] // IMAGE["patch_size"]
    old["vision_model.embeddings.position_ids"] = torch.arange(grid * grid + 1)[None]
    old["text_model.pooler.dense.weight"] = torch.full((16, 16), 0.5)
    old["text_model.pooler.dense.bias"] = torch.full((16,), 0.25)
    (out / "bin").mkdir()
    torch.save(old, out / "bin/pytorch_model.bin")
    save_shards(half, out / "bin_sharded", 2, "pytorch_model-{:05d}-of-{:05d}.bin", "pytorch_model.bin.index.json",
                torch.save)
    for folder in "sharded", "bin", "bin_sharded":
        shutil.copy(out / "single/config.json", out / folder)
    with h5py.File(out / "original.h5", "w", libver="latest") as file:
        for name, t in originals.items():
            file[name] = t.contiguous().numpy().astype(np.float32)
    save_types(out / "types.safetensors")


if __name__ == "__main__":
    main()
