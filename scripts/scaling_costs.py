"""What a training step computes, keeps and sends, from a model's description: see docs/scaling.md for the formulas.

Everything is per step; FLOPs count a multiply-add as two; bytes are sent (or received) by one rank."""
import os
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A convolutional tower's cost does not follow from a few widths: counted layer by layer, forward and backward.
RESNET_IMAGE_GFLOP, RESNET_PARAMETERS = 36.7, 76_989_537
UNIT = 1024  # elements whose squares are summed together, optim/partition.h


def read_description(name):
    """configs/models/NAME.yaml, of which two levels of `key: value` are all there is."""
    out, inner = {}, None
    with open(os.path.join(ROOT, "configs/models", name + ".yaml")) as file:
        for line in file:
            line = line.split("#")[0].rstrip()
            if not line:
                continue
            key, value = (part.strip() for part in line.split(":", 1))
            if not value:
                inner = out[key] = {}
            else:
                (inner if line.startswith(" ") else out)[key] = int(value) if value.isdigit() else value
    return out


@dataclass
class Model:
    name: str
    embed: int
    context: int
    parameters: int
    pair_flops: float   # towers, forward and backward of one pair
    layers: int         # of both towers


def layer_flops(tokens, width, ffn, passes=3):
    """Products of a transformer layer (q, k, v, output: 8 T d^2; feed-forward: 4 T d f) and attention (4 T^2 d);
    backward costs twice the forward."""
    return passes * ((8 * width + 4 * ffn) * tokens * width + 4 * tokens ** 2 * width)


def text_parameters(t, embed):
    h, f = t["hidden"], t["intermediate"]
    tables = (t["vocabulary"] + t["positions"] + t["types"]) * h + 2 * h
    return tables + t["layers"] * (4 * h * h + 2 * h * f + 9 * h + f) + h * embed


def image_parameters(i, embed):
    d, p, n = i["width"], i["patch"], (i["resolution"] // i["patch"]) ** 2
    return 3 * p * p * d + d + (n + 1) * d + 4 * d + i["layers"] * (12 * d * d + 13 * d) + d * embed


def load_model(name, vocabulary=21128, mask_ratio=0.0):
    c = read_description(name)
    i, t, embed = c["image"], c["text"], c["embed_dim"]
    t["vocabulary"] = t["vocabulary"] or vocabulary
    flops = t["layers"] * layer_flops(c["context_length"], t["hidden"], t["intermediate"])
    if i.get("kind") == "resnet":
        if name != "RN50":
            raise SystemExit(f"{name}: the cost of this ResNet is not known")
        return Model(name, embed, c["context_length"], RESNET_PARAMETERS, flops + RESNET_IMAGE_GFLOP * 1e9,
                     t["layers"] + sum(int(s) for s in i["stages"].strip("[]").split(",")))
    n = (i["resolution"] // i["patch"]) ** 2
    kept = int(n * (1 - mask_ratio))
    flops += i["layers"] * layer_flops(kept + 1, i["width"], 4 * i["width"])
    flops += 2 * 2 * kept * 3 * i["patch"] ** 2 * i["width"]  # patches: no gradient into the pixels
    parameters = image_parameters(i, embed) + text_parameters(t, embed) + 1
    return Model(name, embed, c["context_length"], parameters, flops, t["layers"] + i["layers"])


def loss_flops(model, own, batch):
    """Own rows against all columns: once in forward; in backward once more, and for either gradient."""
    return 2 * own * batch * model.embed, 6 * own * batch * model.embed


@dataclass
class Traffic:
    """Bytes that one of `ranks` sends in a step of `batch` pairs; what it receives is as much, to a rank's share."""
    features: float          # all-gather of the texts' features, f32
    columns: float           # three all-to-alls of a number a column: log-sum-exps, maxima, weights
    feature_gradients: float  # reduce-scatter of the texts' gradients
    gradients: float         # reduce-scatter of all buckets, f32
    norms: float             # all-gather of a number a unit
    values: float            # all-gather of the new weights: f32, and their bf16 copies

    def total(self):
        return sum(vars(self).values())


def traffic(model, ranks, batch, bf16=True):
    away = (ranks - 1) / ranks
    return Traffic(features=4 * away * batch * model.embed, columns=3 * 4 * away * batch,
                   feature_gradients=4 * away * batch * model.embed, gradients=4 * away * model.parameters,
                   norms=4 * away * model.parameters / UNIT, values=(6 if bf16 else 4) * away * model.parameters)


def state_bytes(model, ranks, bf16=True):
    """Values and gradients f32, copies bf16, Adam's moments sharded."""
    return model.parameters * (8 + (2 if bf16 else 0) + 8 / ranks)


def loss_bytes(model, ranks, batch, tile=1024):
    """Texts of all ranks and their gradient, own images and theirs, a few numbers a column, one tile of logits."""
    own = batch / ranks
    return 8 * batch * model.embed + 8 * own * model.embed + 24 * batch + 4 * tile * tile
