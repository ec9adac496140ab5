#!/usr/bin/env python3
"""Writes tests/golden/features.{npy,jsonl}: the same small table by NumPy and by json.dumps, as the original code
stores features, and tests/golden/h5py_plain.h5, an HDF5 file that is not tuwen's."""
import json
import pathlib

import h5py
import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"


def table():
    """(5, 7): the same formula is in tests/test_features.c."""
    i = np.arange(35, dtype=np.float32)
    return ((i * i - np.float32(100)) / np.float32(977)).astype(np.float32).reshape(5, 7)


def main():
    rows = table()
    np.save(GOLDEN / "features.npy", rows)
    with open(GOLDEN / "features.jsonl", "w") as f:
        for image_id, row in enumerate(rows.tolist()):
            f.write(json.dumps({"image_id": 1000 * image_id + 1, "feature": row}) + "\n")
    with h5py.File(GOLDEN / "h5py_plain.h5", "w") as f:
        f["x"] = np.arange(4, dtype="f4")


if __name__ == "__main__":
    main()
