#!/usr/bin/env python3
"""Reads every data set and attribute of tuwen HDF5 files with h5py, whose own HDF5 verifies each chunk's fletcher32.
    scripts/check_checkpoint_h5py.py FILE..."""
import sys

import h5py


def main():
    for path in sys.argv[1:]:
        with h5py.File(path, "r") as f:
            print(f"{path}: {f.attrs['format'].decode()}, version {f.attrs['format_version']}, user block {f.userblock_size}")
            total = 0

            def visit(name, item):
                nonlocal total
                if isinstance(item, h5py.Dataset):
                    assert item.fletcher32, f"{name} has no fletcher32"
                    total += item[...].nbytes

            f.visititems(visit)
            for name, value in f.attrs.items():
                print(f"  {name}: {value}")
            print(f"  {total} bytes read, all checksums right")


if __name__ == "__main__":
    main()
