#!/usr/bin/env python3
"""Writes tests/golden/parts/: what `tuwen train --init_image ... --init_text ...` starts from, for tests/test_parts.sh.

    python3 scripts/make_golden_parts.py [--output tests/golden/parts]

All hold towers of tests/golden/convert (make_golden_convert.py), the image tower of clip.pt or resnet.pt and bert/:
openai.pt, openai-resnet.pt   TorchScript archives as OpenAI publishes CLIP, in its types
clip/                         transformers' CLIPModel
vision/, vision-projected/    CLIPVisionModel (which has no projection), CLIPVisionModelWithProjection
vision-old/                   CLIPVisionModel as transformers before 5 named it, pytorch_model.bin
chinese-vision/               ChineseCLIPVisionModel
chinese-text/                 ChineseCLIPTextModel
Each is loaded by its own library and compared with the others before it is kept. Needs torch, cn_clip, transformers."""
import argparse
import pathlib

import torch
from cn_clip.clip import model as reference
from transformers import (ChineseCLIPTextConfig, ChineseCLIPTextModel, ChineseCLIPVisionConfig,
                          ChineseCLIPVisionModel, CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel,
                          CLIPVisionModelWithProjection)

import openai_clip

SIDE, PATCH, WIDTH, LAYERS, HEADS, EMBED = 16, 8, 16, 2, 2, 8
VISION = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
              image_size=SIDE, patch_size=PATCH, projection_dim=EMBED)


def visual_of(state):
    return {k.removeprefix("module.").removeprefix("visual."): v for k, v in state.items()
            if k.removeprefix("module.").startswith("visual.")}


def openai(visual, state, scale, path):
    visual.load_state_dict(visual_of(state), strict=True)
    model = openai_clip.OpenAIClip(visual, EMBED)
    model.logit_scale.data.copy_(scale)
    openai_clip.save(model, path)
    saved = torch.jit.load(path).state_dict()
    assert {"visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight",
            "input_resolution", "context_length", "vocab_size"} <= set(saved)
    for name, value in visual_of(state).items():
        assert torch.equal(saved["visual." + name].float(), value.float()), name


def hugging_face(state):
    """The image tower's tensors under the names of CLIPVisionModelWithProjection."""
    out = {"visual_projection.weight": state["proj"].T}
    names = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight",
             "positional_embedding": "embeddings.position_embedding.weight"}
    for name, value in state.items():
        if name == "proj":
            continue
        if "attn.in_proj_" in name:
            layer, kind = name.split(".")[2], name.rsplit("_", 1)[1]
            for part, rows in zip("qkv", value.chunk(3)):
                out[f"vision_model.encoder.layers.{layer}.self_attn.{part}_proj.{kind}"] = rows
            continue
        for old, new in (("transformer.resblocks", "encoder.layers"), ("ln_pre", "pre_layrnorm"),
                         ("ln_post", "post_layernorm"), ("attn.", "self_attn."), ("ln_1", "layer_norm1"),
                         ("ln_2", "layer_norm2"), ("c_fc", "fc1"), ("c_proj", "fc2")):
            name = name.replace(old, new)
        out["vision_model." + names.get(name, name)] = value
    return out


def fill(model, state):
    report = model.load_state_dict(state, strict=False)
    missing = [m for m in report.missing_keys if "position_ids" not in m]
    assert not missing and not report.unexpected_keys, (missing, report.unexpected_keys)
    return model.half().eval()


@torch.no_grad()
def vision_folders(state, scale, out):
    projected = hugging_face(state)
    bare = {k.removeprefix("vision_model."): v for k, v in projected.items() if k.startswith("vision_model.")}
    clip = CLIPModel(CLIPConfig(projection_dim=EMBED, vision_config=VISION, text_config=dict(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=12,
        max_position_embeddings=8, projection_dim=EMBED, bos_token_id=1, eos_token_id=2)))
    text = {k: v for k, v in clip.state_dict().items() if k.startswith("text_")}
    models = {"clip": fill(clip, {**projected, **text, "logit_scale": scale}),
              "vision-projected": fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)), projected),
              "vision": fill(CLIPVisionModel(CLIPVisionConfig(**VISION)), bare),
              "chinese-vision": fill(ChineseCLIPVisionModel(ChineseCLIPVisionConfig(**VISION)), bare)}
    for name, model in models.items():
        model.save_pretrained(out / name)
    models["vision"].config.save_pretrained(out / "vision-old")
    torch.save({"vision_model." + k: v.half() for k, v in bare.items()}, out / "vision-old/pytorch_model.bin")
    pixels = torch.randn(3, 3, SIDE, SIDE)
    tower = reference.VisualTransformer(SIDE, PATCH, WIDTH, LAYERS, HEADS, EMBED).eval()
    tower.load_state_dict({k: v.float() for k, v in state.items()})
    want = tower(pixels)
    for name, cls in (("clip", CLIPModel), ("vision-projected", CLIPVisionModelWithProjection),
                      ("vision", CLIPVisionModel), ("vision-old", CLIPVisionModel),
                      ("chinese-vision", ChineseCLIPVisionModel)):
        model = cls.from_pretrained(out / name, dtype=torch.float32).eval()
        got = model.vision_model(pixel_values=pixels) if name == "clip" else model(pixel_values=pixels)
        got = got.image_embeds if name == "vision-projected" else got.pooler_output @ state["proj"].float()
        assert (got - want).abs().max() < 1e-4, (name, (got - want).abs().max())


def text_folder(state, out):
    state = {k.removeprefix("bert.").replace("gamma", "weight").replace("beta", "bias"): v for k, v in state.items()}
    words, width = state["embeddings.word_embeddings.weight"].shape
    model = ChineseCLIPTextModel(ChineseCLIPTextConfig(
        vocab_size=words, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=20))
    report = model.load_state_dict(state, strict=False)
    assert not [m for m in report.missing_keys if "_ids" not in m], report
    model.eval().save_pretrained(out)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=root / "tests/golden/parts")
    out = parser.parse_args().output
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    towers = root / "tests/golden/convert"
    clip = torch.load(towers / "clip.pt", weights_only=True)
    openai(reference.VisualTransformer(SIDE, PATCH, WIDTH, LAYERS, HEADS, EMBED), clip, clip["logit_scale"].float(),
           out / "openai.pt")
    resnet = torch.load(towers / "resnet.pt", weights_only=True)["state_dict"]
    openai(reference.ModifiedResNet([1, 1, 1, 1], EMBED, 2, 64, 4), resnet, resnet["module.logit_scale"],
           out / "openai-resnet.pt")
    vision_folders(visual_of(clip), clip["logit_scale"], out)
    text_folder(torch.load(towers / "bert/pytorch_model.bin", weights_only=True), out / "chinese-text")


if __name__ == "__main__":
    main()
