#!/usr/bin/env python3
"""Writes tests/golden/convert/: small weight files of the reference implementations, for tests/test_convert.sh.

    python3 scripts/make_golden_convert.py [--output tests/golden/convert]

original.pt   cn_clip's model in its published types (mostly f16), "module.", a pooler
legacy.pt     the same model's weights in f32 in the form before PyTorch 1.6; bare.pt without "module."
hf/           the same weights in transformers' ChineseCLIPModel, f16
flash.pt      a smaller model (small.yaml) with FlashAttention's names
training.pt   the smaller one after three steps of AdamW, with the optimizer's state
resnet.pt     a small ModifiedResNet (resnet.yaml) in the published types, with its batch counters
clip.pt       an image tower in OpenAI's names; bert/ a BertModel with gamma and beta, for training from parts
Both references are compared before anything is written. Needs torch, cn_clip, transformers."""
import argparse
import os
import shutil

import torch
import torch.nn.functional as F
import yaml
from cn_clip.clip import model as reference
from transformers import BertConfig, BertModel, ChineseCLIPConfig, ChineseCLIPModel

BIG = dict(embed_dim=16, image_resolution=16, vision_layers=1, vision_width=64, vision_patch_size=8, vocab_size=0,
           text_hidden_size=64, text_num_hidden_layers=1, text_num_attention_heads=1, text_intermediate_size=48,
           text_max_position_embeddings=20, text_type_vocab_size=2)
SMALL = dict(BIG, embed_dim=8, vision_layers=2, vision_width=16, vision_head_width=8, text_hidden_size=16,
             text_num_hidden_layers=2, text_num_attention_heads=2, text_intermediate_size=24)
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("一个红绿蓝黄色的圆方三角形左右上下大小在和边是图画里有")


def build(sizes):
    model = reference.CLIP(**{**sizes, "vocab_size": len(VOCAB)}, text_attention_probs_dropout_prob=0.0,
                           text_hidden_act="gelu", text_hidden_dropout_prob=0.0, text_initializer_range=0.02).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_((0.1 if p.ndim == 1 else 0.02) * torch.randn_like(p))
            p.copy_(p.half().float())
    return model


def hugging_face(model, sizes):
    """ChineseCLIPModel with the same weights."""
    config = ChineseCLIPConfig(
        text_config=dict(vocab_size=len(VOCAB), hidden_size=sizes["text_hidden_size"],
                         num_hidden_layers=sizes["text_num_hidden_layers"],
                         num_attention_heads=sizes["text_num_attention_heads"],
                         intermediate_size=sizes["text_intermediate_size"],
                         max_position_embeddings=sizes["text_max_position_embeddings"]),
        vision_config=dict(hidden_size=sizes["vision_width"], intermediate_size=4 * sizes["vision_width"],
                           num_hidden_layers=sizes["vision_layers"], num_attention_heads=sizes["vision_width"] // 64,
                           image_size=sizes["image_resolution"], patch_size=sizes["vision_patch_size"]),
        projection_dim=sizes["embed_dim"])
    out, own = ChineseCLIPModel(config).eval(), model.state_dict()
    state = {"logit_scale": own["logit_scale"], "visual_projection.weight": own["visual.proj"].T,
             "text_projection.weight": own["text_projection"].T}
    names = {"class_embedding": "embeddings.class_embedding", "conv1.weight": "embeddings.patch_embedding.weight",
             "positional_embedding": "embeddings.position_embedding.weight"}
    for name, value in own.items():
        if name.startswith("bert."):
            state["text_model." + name[5:]] = value
        if not name.startswith("visual.") or name == "visual.proj":
            continue
        name = name[7:]
        if "attn.in_proj_" in name:
            layer, kind = name.split(".")[2], name.rsplit("_", 1)[1]
            for part, rows in zip("qkv", value.chunk(3)):
                state[f"vision_model.encoder.layers.{layer}.self_attn.{part}_proj.{kind}"] = rows
            continue
        for old, new in (("transformer.resblocks", "encoder.layers"), ("ln_pre", "pre_layrnorm"),
                         ("ln_post", "post_layernorm"), ("attn.", "self_attn."), ("ln_1", "layer_norm1"),
                         ("ln_2", "layer_norm2"), ("c_fc", "fc1"), ("c_proj", "fc2")):
            name = name.replace(old, new)
        state["vision_model." + names.get(name, name)] = value
    missing = set(out.state_dict()) - set(state)
    assert all("position_ids" in m for m in missing), missing
    out.load_state_dict(state, strict=False)
    return out


@torch.no_grad()
def compare(model, other, sizes):
    r = sizes["image_resolution"]
    pixels, ids = torch.randn(3, 3, r, r), torch.randint(5, len(VOCAB), (3, 8))
    for a, b in ((model.encode_image(pixels), other.get_image_features(pixel_values=pixels)),
                 (model.encode_text(ids), other.get_text_features(input_ids=ids))):
        b = getattr(b, "pooler_output", b)
        difference = (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).abs().max().item()
        assert difference < 1e-5, difference


def train(model, sizes):
    skip = lambda n: any(part in n for part in ("bn", "ln", "bias", "logit_scale"))
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW([{"params": [p for n, p in named if skip(n)], "weight_decay": 0.0},
                                   {"params": [p for n, p in named if not skip(n)], "weight_decay": 0.2}],
                                  lr=5e-5, betas=(0.9, 0.98), eps=1e-6)
    for _ in range(3):
        r = sizes["image_resolution"]
        image = F.normalize(model.encode_image(torch.randn(4, 3, r, r)), dim=-1)
        text = F.normalize(model.encode_text(torch.randint(5, len(VOCAB), (4, 8))), dim=-1)
        loss = F.cross_entropy(model.logit_scale.exp() * image @ text.T, torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer.state_dict()


def save(path, state, **more):
    state = {"module." + k: v.detach().clone() for k, v in state.items()}
    torch.save({"epoch": 3, "step": 77, "name": "golden", "state_dict": state, **more}, path)


def write_big(at):
    model = build(BIG)
    other = hugging_face(model, BIG)
    compare(model, other, BIG)
    other.half().save_pretrained(at("hf"))
    shutil.copy(at("vocab.txt"), at("hf/vocab.txt"))
    half = build(BIG)
    half.load_state_dict(model.state_dict())
    reference.convert_weights(half)
    pooler = {"bert.pooler.dense.weight": torch.randn(64, 64).half(), "bert.pooler.dense.bias": torch.randn(64).half()}
    save(at("original.pt"), {**half.state_dict(), **pooler})


def write_small(at):
    model = build(SMALL)
    bare = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(bare, at("bare.pt"))
    save(at("legacy.pt.tmp"), model.state_dict())
    torch.save(torch.load(at("legacy.pt.tmp")), at("legacy.pt"), _use_new_zipfile_serialization=False)
    os.remove(at("legacy.pt.tmp"))
    save(at("flash.pt"), reference.convert_state_dict(dict(model.state_dict())))
    torch.save({**{k: v.half() for k, v in bare.items() if k.startswith("visual.") or k == "logit_scale"},
                "token_embedding.weight": torch.zeros(4, 8)}, at("clip.pt"))
    state = train(model, SMALL)
    save(at("training.pt"), model.state_dict(), optimizer=state)
    yaml.safe_dump({"name": "small-golden", "embed_dim": 8, "context_length": 12,
                    "image": dict(resolution=16, patch=8, width=16, layers=2, heads=2),
                    "text": dict(vocabulary=len(VOCAB), positions=20, types=2, hidden=16, layers=2, heads=2,
                                 intermediate=24)}, open(at("small.yaml"), "w"), sort_keys=False)


def write_resnet(at):
    sizes = dict(SMALL, image_resolution=64, vision_layers=[1, 1, 1, 1], vision_width=4, vision_patch_size=None,
                 vision_head_width=64, embed_dim=8)
    model = build(sizes)
    with torch.no_grad():
        model.train().encode_image(torch.randn(4, 3, 64, 64))  # moves statistics and counters
    reference.convert_weights(model)
    save(at("resnet.pt"), model.state_dict())
    yaml.safe_dump({"name": "resnet-golden", "embed_dim": 8, "context_length": 12,
                    "image": dict(kind="resnet", resolution=64, width=4, stages=[1, 1, 1, 1], heads=2),
                    "text": dict(vocabulary=len(VOCAB), positions=20, types=2, hidden=16, layers=2, heads=2,
                                 intermediate=24)}, open(at("resnet.yaml"), "w"), sort_keys=False)


def write_bert(at):
    config = BertConfig(vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=24, max_position_embeddings=20)
    bert = BertModel(config)
    os.makedirs(at("bert"), exist_ok=True)
    config.save_pretrained(at("bert"))
    rename = lambda n: "bert." + n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias",
                                                                                          "LayerNorm.beta")
    torch.save({rename(n): v for n, v in bert.state_dict().items()}, at("bert/pytorch_model.bin"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--output", default="tests/golden/convert")
    folder = p.parse_args().output
    at = lambda name: os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(7)
    with open(at("vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(token + "\n" for token in VOCAB)
    write_big(at)
    write_small(at)
    write_bert(at)
    write_resnet(at)


if __name__ == "__main__":
    main()
