"""tuwen's checkpoints from Python: read(path), write(path, ...), and the reference's model made from one.

Needs h5py, numpy, pyyaml; write() also xxhash (the seal, train/formats/seal.h); reference_model() torch, cn_clip.
    python3 scripts/tuwen_checkpoint.py FILE.h5      lists what is in it"""
import os
import struct
import sys

import h5py
import numpy as np
import yaml

SEAL_BYTES, BLOCK = 512, 256 << 10


def _text(data_set):
    raw = np.asarray(data_set[()]).tobytes()
    return raw[:int(data_set.attrs.get("bytes", len(raw)))]


def read(path):
    """A dict: params (name -> array), model, config (from YAML), vocab (bytes or None), attributes."""
    with h5py.File(path, "r") as f:
        params = {}
        for name, data in f["params"].items():
            value = data[()]
            params[name] = value.reshape(()) if "scalar" in data.attrs else value
        meta = {name: _text(data) for name, data in f["meta"].items()}
        attributes = dict(f.attrs)
    return {"params": params, "attributes": attributes, "vocab": meta.get("vocab"),
            "model": yaml.safe_load(meta["model_yaml"]) if "model_yaml" in meta else None,
            "config": yaml.safe_load(meta["config_yaml"]) if "config_yaml" in meta else {}}


def _seal(path):
    import xxhash
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        f.seek(SEAL_BYTES)
        blocks = b"".join(struct.pack("<Q", xxhash.xxh64_intdigest(block)) for block in iter(lambda: f.read(BLOCK), b""))
        digest = xxhash.xxh64_intdigest(blocks, seed=size - SEAL_BYTES)
        head = struct.pack("<8sIIQQ32s440s", b"\x89TWH5\r\n\x1a", 1, 0, size, digest, b"checkpoint",
                           b"A tuwen checkpoint: HDF5 behind 512 bytes of seal.")
        f.seek(0)
        f.write(head + struct.pack("<Q", xxhash.xxh64_intdigest(head)))


def _put_text(group, name, text):
    raw = text if isinstance(text, bytes) else text.encode()
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(1, len(raw)))
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    kind.set_cset(h5py.h5t.CSET_UTF8)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1,))
    plan.set_fletcher32()
    data = h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple((1,)), plan)
    data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(raw or b"\0", f"S{max(1, len(raw))}"), kind)
    h5py.Dataset(data).attrs.create("bytes", len(raw), dtype="<i8")


def _text_attribute(file, name, text):
    kind = h5py.string_dtype("utf-8", len(text.encode()))
    file.attrs.create(name, np.array(text.encode(), kind), dtype=kind)


def write(path, params, model, vocab=None, config_yaml=None):
    """params: name -> f32 array; model: the dict of configs/models/*.yaml; vocab: the bytes of vocab.txt."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with h5py.File(temporary, "w", userblock_size=SEAL_BYTES, libver=("v110", "v110")) as f:
        _text_attribute(f, "format", "tuwen checkpoint")
        _text_attribute(f, "precision", "f32")
        for name in ("step", "epoch", "position", "adam_steps", "skipped", "skipped_total", "micro_batch"):
            f.attrs.create(name, 0, dtype="<i8")
        for name, value in (("format_version", 1), ("context_length", model["context_length"]), ("best_step", -1),
                            ("threads", 1), ("ranks", 1)):
            f.attrs.create(name, value, dtype="<i8")
        f.attrs.create("seed", 0, dtype="<u8")
        f.attrs.create("best_r1", -1.0, dtype="<f8")
        meta = f.create_group("meta", track_order=True)
        _put_text(meta, "model_yaml", yaml.safe_dump(model, sort_keys=False))
        if config_yaml:
            _put_text(meta, "config_yaml", config_yaml)
        if vocab is not None:
            _put_text(meta, "vocab", vocab)
        group = f.create_group("params", track_order=True)
        for name, value in params.items():
            value = np.asarray(value, "<f4")
            data = group.create_dataset(name, data=value.reshape(value.shape or (1,)), fletcher32=True, chunks=True)
            if value.ndim == 0:
                data.attrs.create("scalar", 1, dtype="<i8")
    _seal(temporary)
    os.replace(temporary, path)


def reference_class(model, vocab_size, dropout=0.0, attention_dropout=0.0, tokenizer=None):
    """The reference's CLIP class at the sizes of a model description, as it is initialised there."""
    from cn_clip.clip.model import CLIP
    image, text = model["image"], model["text"]
    extra = {"tokenizer": tokenizer} if tokenizer else {}
    resnet = image.get("kind") == "resnet"  # its class takes the number of heads as width / 2
    return CLIP(embed_dim=model["embed_dim"], image_resolution=image["resolution"],
                vision_layers=image["stages"] if resnet else image["layers"], vision_width=image["width"],
                vision_patch_size=None if resnet else image["patch"],
                vision_head_width=(32 * image["width"] if resnet else image["width"]) // image["heads"],
                vocab_size=vocab_size,
                text_attention_probs_dropout_prob=attention_dropout, text_hidden_act="gelu",
                text_hidden_dropout_prob=dropout, text_hidden_size=text["hidden"], text_initializer_range=0.02,
                text_intermediate_size=text["intermediate"], text_max_position_embeddings=text["positions"],
                text_num_attention_heads=text["heads"], text_num_hidden_layers=text["layers"],
                text_type_vocab_size=text["types"], **extra)


def named_parameters(model):
    """The reference's parameters under the names of checkpoints: the pooler is not used."""
    return [(n, p) for n, p in model.named_parameters() if "pooler" not in n]


def named_statistics(model):
    """Batch norm's running averages, which checkpoints hold beside the parameters."""
    return [(n, b) for n, b in model.named_buffers() if n.endswith(("running_mean", "running_var"))]


def load_into(model, params):
    """Copies params into the reference's model; both must have the same names and shapes."""
    import torch
    own = dict(named_parameters(model) + named_statistics(model))
    different = sorted(set(own) ^ set(params))
    if different:
        raise SystemExit(f"parameters on one side only: {different[:8]}")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(torch.from_numpy(np.ascontiguousarray(params[name])).reshape(p.shape))


def main():
    checkpoint = read(sys.argv[1])
    for name, value in checkpoint["attributes"].items():
        print(f"{name}: {value}")
    print(yaml.safe_dump(checkpoint["model"], sort_keys=False))
    for name, value in checkpoint["params"].items():
        print(f"{name} {value.shape} norm {np.linalg.norm(value):.6g}")


if __name__ == "__main__":
    main()
