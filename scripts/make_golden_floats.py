#!/usr/bin/env python3
"""Writes tests/golden/python_floats.txt: float32 bits in hexadecimal and what Python prints for that value as a
double. All powers of two are in it, because there the shortest text is not always the nearest one."""
import pathlib
import random
import struct


def line(bits):
    value = struct.unpack("<f", struct.pack("<I", bits))[0]
    return f"{bits:08x} {value!r}\n"


def main():
    random.seed(7)
    bits = [e << 23 for e in range(1, 255)] + [1 << i for i in range(23)]
    bits += [0, 0x80000000, 0x7F7FFFFF, 0x3DCCCCCD, 0x4B800001, 0xCB800000, 0x5A0E1BCA, 0x38D1B717, 0x3727C5AC]
    bits += [struct.unpack("<I", struct.pack("<f", random.gauss(0, 0.05)))[0] for _ in range(300)]
    bits += [b for b in (random.getrandbits(32) for _ in range(300)) if b >> 23 & 0xFF != 0xFF]
    out = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/python_floats.txt"
    out.write_text("".join(line(b) for b in bits))


if __name__ == "__main__":
    main()
