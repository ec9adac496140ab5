#!/usr/bin/env python3
"""Compares `tuwen classify` with the reference's zero-shot evaluation, and `tuwen similarity` with its quick API: the
same checkpoint, folder and templates.

    python3 scripts/compare_classify.py TUWEN CHECKPOINT.h5 FOLDER [--templates FILE] [--index FILE]

The reference's own functions build the classifier, read the folder (torchvision's ImageFolder) and run the model, on
the CPU. Fails unless probabilities agree within 2e-6 (after rounding to 6 decimals), rows and columns have the same
order, and the rest of the file is equal to the byte; and unless the quick API's logits agree within 2e-5. Needs torch, torchvision, cn_clip, h5py, PyYAML."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import types

import numpy as np
import torch
import tuwen_checkpoint as tc


def reference_model(args, checkpoint):
    """The reference's class with these weights; its global tokenizer gets this vocabulary."""
    from cn_clip.clip import bert_tokenizer, utils
    import cn_clip.clip as clip
    vocab = os.path.join(args.work, "vocab.txt")
    with open(vocab, "wb") as f:
        f.write(checkpoint["vocab"])
    tokenizer = bert_tokenizer.FullTokenizer(vocab_file=vocab)
    utils._tokenizer = clip._tokenizer = tokenizer
    model = tc.reference_class(checkpoint["model"], len(tokenizer.vocab), tokenizer=tokenizer).eval()
    tc.load_into(model, checkpoint["params"])
    return model


def quick(args, checkpoint, model):
    """Largest difference of logits: images of many modes, texts with capitals and quotes that are not replaced."""
    from PIL import Image
    from cn_clip.clip import tokenize, utils
    texts = ["红色的圆形", "“蓝色”的方块", '"蓝色"的方块', "ABC café", ""]
    found = [os.path.join(folder, n) for folder, _, names in sorted(os.walk(os.path.join(args.folder, "test")))
             for n in sorted(names) if not n.endswith(".txt")][:12]
    more = [part for name in found[1:] for part in ("--image", name)]
    run = subprocess.run([args.tuwen, "similarity", "--json", "--checkpoint", args.checkpoint, *more, "--", found[0],
                          *texts], check=True, capture_output=True)
    ours = json.loads(run.stdout)["images"]
    size = checkpoint["model"]["image"]["resolution"]
    pixels = torch.stack([utils.image_transform(size)(Image.open(name)) for name in found])
    words = tokenize(texts, context_length=checkpoint["model"]["context_length"])
    logits = model.get_similarity(pixels, words)[0].numpy()
    assert [r["image"] for r in ours] == found
    chances = np.abs(np.array([r["probabilities"] for r in ours]) - torch.from_numpy(logits).softmax(-1).numpy()).max()
    modes = sorted({Image.open(name).mode for name in found})
    difference = np.abs(np.array([r["logits"] for r in ours]) - logits).max()
    print(f"similarity: {len(found)} images of modes {' '.join(modes)}, {len(texts)} texts: logits within {difference:.1e}, "
          f"probabilities within {chances:.1e}")
    return difference


def reference(args, checkpoint, model, templates):
    from cn_clip.clip import utils
    import cn_clip.eval.zeroshot_evaluation as evaluation
    from cn_clip.eval.data import get_zeroshot_dataset
    given = types.SimpleNamespace(gpu="cpu", context_length=checkpoint["model"]["context_length"], num_workers=0,
                                  datapath=os.path.join(args.folder, "test"), img_batch_size=16, index=args.index)
    with open(os.path.join(args.folder, "label_cn.txt"), encoding="utf8") as f:
        names = [line.strip() for line in f.readlines()]
    data = get_zeroshot_dataset(given, utils.image_transform(checkpoint["model"]["image"]["resolution"]))
    functions = [lambda c, t=t: t.replace("{}", c) for t in templates]
    classifier = evaluation.zero_shot_classifier(model, names, functions, given)
    # Its own turns a one-element array into a float, which NumPy 2 refuses.
    evaluation.accuracy = lambda output, target, topk: [float((output.argmax(1) == target).sum()) for _ in topk]
    top1, outputs = evaluation.run(model, classifier, data.dataloader, given)
    count = lambda m: sum(p.numel() for p in m.parameters())
    written = {"model_name": "CN-CLIP-" + checkpoint["model"]["name"], "dataset_name": args.name,
               "num_trainable_params": 0, "num_params": count(model), "num_visual_params": count(model.visual),
               "num_backbone_params": count(model), "n_shot": 0, "rnd_seeds": [123],
               "predictions": [outputs.numpy().tolist()]}
    return 100 * top1, json.loads(json.dumps(written), parse_float=lambda x: round(float(x), 6))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuwen")
    parser.add_argument("checkpoint")
    parser.add_argument("folder")
    parser.add_argument("--templates")
    parser.add_argument("--index", default="")
    args = parser.parse_args()
    args.name = "集“x”\t/名😀"
    checkpoint = tc.read(args.checkpoint)
    with tempfile.TemporaryDirectory() as args.work:
        if not args.templates:
            args.templates = os.path.join(args.work, "templates.txt")
            with open(args.templates, "w", encoding="utf-8") as f:
                f.write("{}\n一张“{}”的Picture\n{}和{}\n{}\n")
        with open(args.templates, encoding="utf-8") as f:
            templates = [line.strip() for line in f if line.strip()]
        scores, predictions = (os.path.join(args.work, n) for n in ("scores.json", "predictions.json"))
        index = ["--index", args.index] if args.index else []
        subprocess.run([args.tuwen, "classify", "--checkpoint", args.checkpoint, "--data", args.folder, "--templates",
                        args.templates, "--output", scores, "--predictions", predictions, "--dataset_name", args.name,
                        *index], check=True, stdout=subprocess.DEVNULL)
        with open(predictions, encoding="utf-8") as f:
            text = f.read()
        with open(scores, encoding="utf-8") as f:
            ours_top1 = json.load(f)["top1"]
        with torch.no_grad():
            model = reference_model(args, checkpoint)
            top1, expected = reference(args, checkpoint, model, templates)
            logits = quick(args, checkpoint, model)
    ours = json.loads(text)
    a, b = np.array(ours.pop("predictions")), np.array(expected.pop("predictions"))
    if a.shape != b.shape:
        sys.exit(f"shapes differ: {a.shape}, reference {b.shape}")
    difference = np.abs(a - b).max()
    print(f"{a.shape[1]} images, {a.shape[2]} classes: largest difference {difference:.1e}, "
          f"{(a != b).mean():.2%} of the rounded numbers differ; top-1 {ours_top1:.4f}, reference {top1:.4f}")
    # The text around the numbers: everything when the reference's numbers stand in ours' place.
    same_numbers = json.dumps({**expected, "predictions": a.tolist()})
    if difference > 2e-6 or ours != expected or text != same_numbers or abs(ours_top1 - top1) > 1e-9 or logits > 2e-5:
        sys.exit("DIFFERENT")
    print("equal")


if __name__ == "__main__":
    main()
