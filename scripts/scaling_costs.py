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
class Segment:
    """A run of the trainable slab, and what of a pair's FLOPs it takes part in."""
    weights: int    # elements
    flops: float    # executed, forward and backward of one pair


@dataclass
class Model:
    name: str
    embed: int
    context: int
    parameters: int
    nominal_flops: float   # towers, forward and backward of one pair: every layer for every token of the context
    pair_flops: float      # what is executed: texts without padding, of the last layers what token 0 needs
    segments: list         # in the order in which backward finishes them: from the slab's end to its start


def layer_flops(tokens, width, ffn, passes=3):
    """Products of a transformer layer (q, k, v, output: 8 T d^2; feed-forward: 4 T d f) and attention (4 T^2 d);
    backward costs twice the forward."""
    return passes * ((8 * width + 4 * ffn) * tokens * width + 4 * tokens ** 2 * width)


def last_layer_flops(tokens, width, ffn, passes=3):
    """Keys and values of all tokens; the rest of one, the only one that is read."""
    return passes * (4 * tokens * width ** 2 + 4 * width ** 2 + 4 * width * ffn + 4 * tokens * width)


def layer_segments(layers, tokens, width, ffn, weights):
    """Of a tower's layers, the last one first."""
    last = [Segment(weights, last_layer_flops(tokens, width, ffn))]
    return last + [Segment(weights, layer_flops(tokens, width, ffn)) for _ in range(layers - 1)]


def text_segments(t, embed, tokens):
    h, f = t["hidden"], t["intermediate"]
    tables = (t["vocabulary"] + t["positions"] + t["types"]) * h + 2 * h
    head = Segment(h * embed + 1, 6 * h * embed)  # and logit_scale
    layers = layer_segments(t["layers"], tokens, h, f, 4 * h * h + 2 * h * f + 9 * h + f)
    return [head] + layers + [Segment(tables, 0.0)]


def image_segments(i, embed, mask_ratio):
    d, p, n = i["width"], i["patch"], (i["resolution"] // i["patch"]) ** 2
    kept = int(n * (1 - mask_ratio))
    patches = 2 * 2 * kept * 3 * p ** 2 * d  # no gradient into the pixels
    head = Segment(d * embed + 2 * d, 6 * d * embed)
    layers = layer_segments(i["layers"], kept + 1, d, 4 * d, 12 * d * d + 13 * d)
    start = Segment(3 * p * p * d + d + (n + 1) * d + 2 * d, patches)
    return [head] + layers + [start], i["layers"] * layer_flops(kept + 1, d, 4 * d) + patches


def load_model(name, vocabulary=21128, mask_ratio=0.0, tokens=None):
    """tokens: of a text on average, all of them taken to be as long; None: the whole context."""
    c = read_description(name)
    i, t, embed = c["image"], c["text"], c["embed_dim"]
    t["vocabulary"] = t["vocabulary"] or vocabulary
    text = text_segments(t, embed, tokens or c["context_length"])
    nominal = t["layers"] * layer_flops(c["context_length"], t["hidden"], t["intermediate"])
    if i.get("kind") == "resnet":
        if name != "RN50":
            raise SystemExit(f"{name}: the cost of this ResNet is not known")
        image_flops = RESNET_IMAGE_GFLOP * 1e9
        weights = RESNET_PARAMETERS - sum(s.weights for s in text)
        image = [Segment(weights, image_flops)]
    else:
        image, image_flops = image_segments(i, embed, mask_ratio)
    segments = text + image
    return Model(name, embed, c["context_length"], sum(s.weights for s in segments),
                 nominal + image_flops, sum(s.flops for s in segments), segments)


def bucket_sizes(parameters, ranks, size):
    """optim/partition.c: elements of each bucket of about `size` bytes, in the order in which backward ends them."""
    least = -(-size // (4 * UNIT))
    even = (least - 1) // ranks * ranks + ranks
    whole = (even if even <= least + least // 4 else least) * UNIT
    count = -(-parameters // whole)
    return [parameters - (count - 1) * whole] + [whole] * (count - 1)


def backward_shares(model, sizes):
    """For each bucket, which share of backward has run when its last gradient is final; evenly within a segment."""
    shares, ends, at = [], iter(model.segments), 0
    segment, left, done = next(ends), 0, 0.0
    left = segment.weights
    for size in sizes:
        at = size
        while at > left:
            at -= left
            done += segment.flops * left / segment.weights
            segment = next(ends)
            left = segment.weights
        done += segment.flops * at / segment.weights
        left -= at
        shares.append(done / model.pair_flops)
    return shares


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
    values: float            # all-gather of the new weights: f32, or in bf16 their copies

    def total(self):
        return sum(vars(self).values())


def traffic(model, ranks, batch, bf16=True):
    away = (ranks - 1) / ranks
    return Traffic(features=4 * away * batch * model.embed, columns=3 * 4 * away * batch,
                   feature_gradients=4 * away * batch * model.embed, gradients=4 * away * model.parameters,
                   norms=4 * away * model.parameters / UNIT, values=(2 if bf16 else 4) * away * model.parameters)


def state_bytes(model, ranks, bf16=True):
    """Gradients f32; in bf16 copies, and the f32 masters with Adam's moments in shares; in f32 the values, moments in shares."""
    return model.parameters * (6 + 12 / ranks if bf16 else 8 + 8 / ranks)


def loss_bytes(model, ranks, batch, tile=1024):
    """Texts of all ranks and their gradient, own images and theirs, a few numbers a column, one tile of logits."""
    own = batch / ranks
    return 8 * batch * model.embed + 8 * own * model.embed + 24 * batch + 4 * tile * tile
