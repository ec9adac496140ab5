#!/usr/bin/env python3
"""Takes models through `tuwen convert` and back into the reference tools, and compares features there and here.

    python3 scripts/check_convert.py --tuwen build/release/tuwen --images DATA/valid_imgs.tsv \\
        --texts DATA/valid_texts.jsonl --vocab vocab.txt

For each --model (names in configs/models), with random weights drawn by cn_clip's class:
  .pt -> .h5 -> .pt       loaded as cn_clip loads it (weights_only, "module." taken off, strict)
  the same, trained       a few steps by `tuwen train` in between
  .h5 -> Hugging Face     ChineseCLIPModel and ChineseCLIPProcessor (Pillow's), which prepares images and texts itself
  Hugging Face's own      written by transformers -> .h5 -> Hugging Face, both loaded
  OpenAI's archive        a TorchScript file as `tuwen train --init_image`, its own encode_image
(Hugging Face has no ResNet.) Each time the features of `tuwen extract` must have a cosine of at least 0.99999 and
differ by at most 1e-4. Needs the packages of scripts/compare_full_size.py."""
import argparse
import glob
import os
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F

import compare_full_size as full
import openai_clip
import reference_run
import tuwen_checkpoint


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", nargs="+", default=["tiny", "tiny-rn"])
    p.add_argument("--tuwen", default="build/release/tuwen")
    p.add_argument("--images", required=True, help="TSV of the original format")
    p.add_argument("--texts", required=True, help="JSONL of the original format")
    p.add_argument("--vocab", required=True)
    p.add_argument("--count", type=int, default=16, help="images, and twice as many texts")
    p.add_argument("--steps", type=int, default=5, help="of training")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--min_cosine", type=float, default=0.99999)
    p.add_argument("--max_difference", type=float, default=1e-4)
    return p.parse_args()


class Check:
    """One model: its files below `folder`, the split of images and texts, and what is wrong so far."""

    def __init__(self, args, name, folder):
        self.args, self.name, self.folder, self.good = args, name, folder, True
        self.split = self.at("split")
        os.makedirs(self.split)
        self.records = full.write_split(args, self.split)
        self.tokenizer = reference_run.make_tokenizer(open(args.vocab, "rb").read(), folder)
        self.model, self.sizes = full.make_model(args, name, self.tokenizer, len(self.tokenizer.vocab))
        full.settle_statistics(self.model, self.sizes, self.split, folder)

    def at(self, name):
        return os.path.join(self.folder, name)

    def tuwen(self, *command):
        result = subprocess.run([self.args.tuwen, *command], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"tuwen {' '.join(command)}: {result.stderr}")

    def convert(self, source, to):
        kind = [] if to.endswith((".h5", ".pt")) else ["--to", "hf"]
        self.tuwen("convert", source, self.at(to), "--vocab", self.args.vocab, "--model", self.description(), *kind)
        return self.at(to)

    def description(self):
        return os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "configs", "models", self.name + ".yaml")

    def train(self, steps, output, *more):
        self.tuwen("train", "--train_data", self.split, "--output", self.at(output), "--batch", "8", "--max_steps",
                   str(steps), "--warmup", "1", "--vocab", self.args.vocab, "--report", "false", *more)
        return glob.glob(os.path.join(self.at(output), "**", "latest"), recursive=True)[0]

    def extract(self, checkpoint):
        output = tempfile.mkdtemp(dir=self.folder)
        self.tuwen("extract", "--checkpoint", checkpoint, "--vocab", self.args.vocab, "--model", self.description(),
                   "--data", self.split, "--output", output)
        return full.read_features(output)

    def compare(self, what, want, got):
        for kind, side in zip(("image", "text"), want):
            if side is not None:
                self.good &= full.report(f"{self.name} {what}, {kind}s", side, got[kind], self.args)

    def reference(self, model):
        return full.reference_features(model, self.sizes, self.split, self.records, self.tokenizer, self.folder)


def load_strictly(check, path):
    """cn_clip's model from a .pt, as cn_clip.clip.utils.create_model takes one."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    if next(iter(state)).startswith("module"):
        state = {k[len("module."):]: v for k, v in state.items() if "bert.pooler" not in k}
    model = tuwen_checkpoint.reference_class(check.sizes, len(check.tokenizer.vocab), tokenizer=check.tokenizer)
    model.load_state_dict(state, strict=True)
    return model.float().eval()


def check_pt(check):
    original = check.at("weights.pt")
    full.write_pt(check.model, check.name, original)
    there = check.convert(original, "there.h5")
    back = load_strictly(check, check.convert(there, "back.pt"))
    ours = check.extract(there)
    check.compare(".pt", check.reference(check.model), ours)
    check.compare(".pt -> .h5 -> .pt", check.reference(back), ours)
    trained = check.train(check.args.steps, "run", "--init", original)
    after = load_strictly(check, check.convert(trained, "trained.pt"))
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(after.parameters(), back.parameters()))
    print(f"{check.name}: {check.args.steps} steps moved weights by up to {moved:.3g}")
    check.good &= moved > 0
    check.compare(f"trained {check.args.steps} steps -> .pt", check.reference(after), check.extract(trained))
    return there, trained


@torch.no_grad()
def hugging_face(check, folder):
    """Features of the files as they are, by the folder's own processor and model."""
    from transformers import ChineseCLIPModel, ChineseCLIPProcessor
    model, report = ChineseCLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32,
                                                     output_loading_info=True)
    if report["missing_keys"] or report["mismatched_keys"] or report["unexpected_keys"]:
        sys.exit(f"{folder}: {report}")
    # Without `backend`, transformers 5 resizes by torchvision, which rounds some pixels to a neighbour.
    processor = ChineseCLIPProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    split, context = reference_run.Split(check.split), check.sizes["context_length"]
    # Texts are lower-cased by the tokenizer; the quotation mark is the evaluation's own replacement.
    texts = [r["text"].replace("“", '"').replace("”", '"') for r in check.records]
    tokens = processor(text=texts, padding=True, truncation=True, max_length=context, return_tensors="pt")
    images = [reference_run.decode(split.images[k]) for k in split.image_keys]
    pixels = torch.cat([processor(images=i, return_tensors="pt").pixel_values for i in images])
    plain = lambda x: F.normalize(getattr(x, "pooler_output", x), dim=-1).numpy()
    image = plain(model.eval().get_image_features(pixel_values=pixels))
    text = plain(model.get_text_features(**tokens))
    exact = reference_run.normalise(reference_run.pixels(split, check.sizes["image"]["resolution"], check.folder))
    print(f"{check.name} {os.path.basename(folder)}: the processor's pixels differ by up to "
          f"{float((pixels - exact).abs().max()):.3g}")
    return ({k.decode(): v for k, v in zip(split.image_keys, image)},
            {str(r["text_id"]): v for r, v in zip(check.records, text)})


def check_hugging_face(check, there, trained):
    written = check.convert(there, "written")
    check.compare(".h5 -> ChineseCLIPModel", hugging_face(check, written), check.extract(there))
    check.compare("trained -> ChineseCLIPModel", hugging_face(check, check.convert(trained, "written-trained")),
                  check.extract(trained))
    # transformers' own folder, its weights moved so that they are no longer tuwen's.
    from transformers import ChineseCLIPModel, ChineseCLIPProcessor
    model, own = ChineseCLIPModel.from_pretrained(written), check.at("own")
    torch.manual_seed(check.args.seed + 1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn_like(p))
    model.save_pretrained(own)
    ChineseCLIPProcessor.from_pretrained(written).save_pretrained(own)
    again = check.convert(check.convert(own, "own.h5"), "own-again")
    ours = check.extract(check.at("own.h5"))
    check.compare("transformers' folder -> .h5", hugging_face(check, own), ours)
    check.compare("transformers' folder -> .h5 -> folder", hugging_face(check, again), ours)


@torch.no_grad()
def check_openai(check, there):
    """The tower of an archive of OpenAI's kind, beside a BERT of any weights, hardly trained."""
    path, bert = check.at("openai.pt"), check.at("bert.pt")
    visual = check.model.visual
    openai_clip.save(openai_clip.OpenAIClip(visual, check.sizes["embed_dim"]), path, half=False)
    torch.save({k: v for k, v in check.model.state_dict().items() if k.startswith("bert.")}, bert)
    run = check.train(1, "parts", "--init_image", path, "--init_text", bert, "--model", check.description(), "--lr",
                      "1e-3", "--freeze", "visual.*", "--batch_norm", "frozen")
    split = reference_run.Split(check.split)
    pixels = reference_run.pixels(split, check.sizes["image"]["resolution"], check.folder)
    features = F.normalize(torch.jit.load(path).encode_image(reference_run.normalise(pixels)), dim=-1).numpy()
    check.compare("OpenAI's archive as --init_image", ({k.decode(): v for k, v in zip(split.image_keys, features)},
                                                     None), check.extract(run))


def main():
    args = parse()
    bad = []
    for name in args.model:
        with tempfile.TemporaryDirectory(prefix="tuwen-check-convert-") as folder:
            check = Check(args, name, folder)
            there, trained = check_pt(check)
            if check.sizes["image"].get("kind") != "resnet":
                check_hugging_face(check, there, trained)
            check_openai(check, there)
        if not check.good:
            bad.append(name)
    sys.exit(f"beyond the limits: {', '.join(bad)}" if bad else 0)


if __name__ == "__main__":
    main()
