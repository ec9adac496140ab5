#!/usr/bin/env python3
"""Makes the golden values of tests/test_image.c and test_resize.c; make_golden_augment.py makes test_augment.c's.

Needs Pillow and NumPy, and libturbojpeg for the JPEG samples that Pillow cannot write. Run from the repository's
root:  python3 scripts/make_golden_images.py [decode] [resize]

Writes sample files to tests/golden/images/ and, beside that folder, images.tsv, photos.tsv (with TW_SHARED or
../shared at hand) and resize.tsv: what goes in, and the CRC-32 of the pixels that the reference gives. Samples that
are there already are kept. The sources of the last are drawn by pattern(), which tests/tw_pattern.h repeats.
"""

import base64
import ctypes
import io
import itertools
import os
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path("tests/golden")
SAMPLES = GOLDEN / "images"
BANDS = {"1": 1, "L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}


def crc(data):
    return f"{zlib.crc32(data):08x}"


def mix(n, seed):
    """n 32-bit words, each a hash of its index and the seed."""
    x = (np.arange(n, dtype=np.uint64) * 2654435761 + seed * 40503) & 0xFFFFFFFF
    for _ in range(2):
        x ^= x >> 16
        x = (x * 0x45D9F3B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def pattern(mode, width, height, seed):
    """Noise (seed % 3 = 0), black and white noise (1) or a noisy slope (2)."""
    bands = BANDS.get(mode, 1)
    word = mix(width * height * bands, seed)
    kind = seed % 3
    if mode == "I":
        values = (word.astype(np.int64) - 2**31) >> (0, 14, 20)[kind]
        return Image.frombytes("I", (width, height), values.astype("<i4").tobytes())
    if mode == "I;16":
        values = (word & 0xFFFF, np.where(word & 1, 65535, 0), (word & 0x1FF))[kind]
        return Image.frombytes("I;16", (width, height), values.astype("<u2").tobytes())
    at = np.arange(width * height, dtype=np.uint64)
    slope = np.repeat((at % width * 3 + at // width * 5) // 4, bands) % 224 + (word & 31)
    values = (word & 255, np.where(word & 1, 255, 0), slope)[kind].astype(np.uint8)
    if mode == "1":
        return Image.frombytes("L", (width, height), np.where(values & 128, 255, 0).astype(np.uint8).tobytes()).convert("1")
    image = Image.frombytes(mode, (width, height), values.tobytes())
    if mode == "P":
        image.putpalette((mix(768, seed + 1) & 255).astype(np.uint8).tobytes())
    return image


def raw(image):
    """The pixels as tw_image holds them: mode 1 as bytes."""
    return (image.convert("L") if image.mode == "1" else image).tobytes()


# ---- sample files ------------------------------------------------------------------------------------


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, color, seed, interlace=False, extra=b"", entries=256):
    """A PNG of noise and slopes, filters varying by row; Pillow cannot write most of these."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    samples = mix(width * height * channels, seed).reshape(height, width, channels)
    at = np.arange(height)[:, None, None] * 977 + np.arange(width)[None, :, None] * 1301
    samples = np.where(samples & 3 == 0, samples >> 7, at) % min(1 << depth, entries)
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x, y, dx, dy in passes:
        part = samples[y::dy, x::dx]
        if not part.size:
            continue
        before = None
        for i, row in enumerate(part.reshape(part.shape[0], -1)):
            bits = "".join(f"{int(v):0{depth}b}" for v in row)
            bits += "0" * (-len(bits) % 8)
            line = np.array([int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)], np.int64)
            step = max(1, channels * depth // 8)
            left = np.concatenate([np.zeros(step, np.int64), line[:-step]])[: len(line)]
            up = before if before is not None else np.zeros_like(line)
            corner = np.concatenate([np.zeros(step, np.int64), up[:-step]])[: len(line)]
            p = left + up - corner
            pa, pb, pc = abs(p - left), abs(p - up), abs(p - corner)
            paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
            guess = (0 * line, left, up, (left + up) // 2, paeth)[i % 5]
            data += bytes([i % 5]) + ((line - guess) & 255).astype(np.uint8).tobytes()
            before = line
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlace))
    packed = zlib.compress(data, 9)
    body = b"".join(chunk(b"IDAT", packed[i : i + 400]) for i in range(0, len(packed), 400))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


def png_samples():
    sizes = {(0, 1): "gray1", (0, 2): "gray2", (0, 4): "gray4", (0, 8): "gray8", (0, 16): "gray16", (2, 8): "rgb8",
             (2, 16): "rgb16", (3, 1): "palette1", (3, 2): "palette2", (3, 4): "palette4", (3, 8): "palette8",
             (4, 8): "gray_alpha8", (4, 16): "gray_alpha16", (6, 8): "rgba8", (6, 16): "rgba16"}  # fmt: skip
    for seed, ((color, depth), name) in enumerate(sizes.items()):
        extra, entries = b"", 1 << min(depth, 8)
        if color == 3:
            entries = min(entries, 200)
            extra = chunk(b"PLTE", (mix(3 * entries, seed) & 255).astype(np.uint8).tobytes())
        yield f"png_{name}.png", png(29, 23, depth, color, seed, extra=extra, entries=entries if color == 3 else 1 << 30)
        yield f"png_{name}_interlaced.png", png(21, 19, depth, color, seed, True, extra, entries if color == 3 else 1 << 30)
    palette = chunk(b"PLTE", bytes(range(60)) * 3)
    yield "png_palette_alpha.png", png(20, 20, 8, 3, 3, False, palette + chunk(b"tRNS", bytes(range(0, 240, 4))), 60)
    yield "png_palette_short.png", png(20, 20, 8, 3, 3, False, chunk(b"PLTE", bytes(range(30, 60))), 60)
    yield "png_palette_one_clear.png", png(20, 20, 8, 3, 3, False, palette + chunk(b"tRNS", b"\xff\xff\x00"), 60)
    yield "png_gray_clear.png", png(20, 20, 8, 0, 4, False, chunk(b"tRNS", b"\x00\x07"))
    yield "png_rgb_clear.png", png(20, 20, 8, 2, 4, False, chunk(b"tRNS", b"\x00\x07\x00\x08\x00\x09"))
    extra = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tEXt", b"Comment\0x") + chunk(b"pHYs", b"\0\0\x0b\x13" * 2 + b"\1")
    yield "png_chunks.png", png(20, 20, 8, 2, 5, False, extra)
    yield "png_1x1.png", png(1, 1, 8, 2, 6)


def photo(width, height, seed=2):
    """Smooth colours with edges, so that a JPEG of it uses all of its coefficients."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [127 + 90 * np.sin(x / (5 + c) + seed) * np.cos(y / (7 - c)) + 30 * ((x + y * (c + 1)) % 17 > 8) for c in range(3)]
    noise = (mix(width * height * 3, seed) & 15).astype(np.float64).reshape(height, width, 3)
    return Image.fromarray(np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8))


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turbo(image, pixel_format, subsampling, quality=85):
    """JPEG by TurboJPEG: 4:4:0, 4:1:1 and YCCK."""
    lib = ctypes.CDLL("libturbojpeg.so.0")
    lib.tjInitCompress.restype = ctypes.c_void_p
    lib.tjGetErrorStr.restype = ctypes.c_char_p
    data, out, size = image.tobytes(), ctypes.POINTER(ctypes.c_ubyte)(), ctypes.c_ulong(0)
    handle = ctypes.c_void_p(lib.tjInitCompress())
    code = lib.tjCompress2(handle, data, image.width, 0, image.height, pixel_format, ctypes.byref(out),
                           ctypes.byref(size), subsampling, quality, 0)  # fmt: skip
    assert code == 0, lib.tjGetErrorStr()
    return ctypes.string_at(out, size.value)


def without_segment(data, marker):
    """A JPEG less its first segment of this marker."""
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def jpeg_samples():
    p = photo(61, 47)
    for name, subsampling in {"444": 0, "422": 1, "420": 2}.items():
        yield f"jpeg_{name}.jpg", saved(p, "JPEG", quality=85, subsampling=subsampling)
        yield f"jpeg_{name}_progressive.jpg", saved(p, "JPEG", quality=70, subsampling=subsampling, progressive=True)
    yield "jpeg_440.jpg", turbo(p, 0, 4)
    yield "jpeg_411.jpg", turbo(p, 0, 5)
    yield "jpeg_restarts.jpg", saved(p, "JPEG", quality=60, restart_marker_blocks=3)
    yield "jpeg_quality_100.jpg", saved(photo(33, 18, 5), "JPEG", quality=100, subsampling=0)
    yield "jpeg_quality_5.jpg", saved(photo(90, 70, 7), "JPEG", quality=5)
    yield "jpeg_rgb.jpg", saved(p, "JPEG", keep_rgb=True)
    yield "jpeg_gray.jpg", saved(p.convert("L"), "JPEG", quality=80)
    yield "jpeg_gray_progressive.jpg", saved(p.convert("L"), "JPEG", quality=80, progressive=True)
    cmyk = Image.merge("CMYK", [*p.split(), photo(61, 47, 9).convert("L")])
    yield "jpeg_cmyk.jpg", saved(cmyk, "JPEG", quality=85)
    yield "jpeg_cmyk_no_adobe.jpg", without_segment(saved(cmyk, "JPEG", quality=85), 0xEE)
    yield "jpeg_ycck.jpg", turbo(cmyk, 11, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "jpeg_rotated_by_exif.jpg", saved(photo(40, 24), "JPEG", exif=exif)
    yield "jpeg_1x1.jpg", saved(photo(1, 1), "JPEG")
    yield "jpeg_tall.jpg", saved(photo(7, 131), "JPEG")


def webp_samples():
    p = photo(53, 37)
    alpha = p.copy()
    alpha.putalpha(photo(53, 37, 4).convert("L"))
    yield "webp_lossy.webp", saved(p, "WEBP", quality=75)
    yield "webp_lossy_low.webp", saved(p, "WEBP", quality=10)
    yield "webp_lossless.webp", saved(p.resize((24, 20)), "WEBP", lossless=True)
    yield "webp_lossy_alpha.webp", saved(alpha, "WEBP", quality=75)
    yield "webp_lossless_alpha.webp", saved(alpha.resize((24, 20)), "WEBP", lossless=True, exact=True)
    frames = [alpha.resize((24, 20)), p.resize((24, 20)).convert("RGBA")]
    yield "webp_animation.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=40)
    yield "webp_animation_opaque.webp", saved(p, "WEBP", save_all=True, append_images=[photo(53, 37, 8)], quality=60)


def decode():
    SAMPLES.mkdir(parents=True, exist_ok=True)
    for name, data in itertools.chain(png_samples(), jpeg_samples(), webp_samples()):
        if not (SAMPLES / name).exists():
            (SAMPLES / name).write_bytes(data)
    lines = [f"# Pillow {Image.__version__}: file, mode, width, height, CRC-32 of the decoded pixels, of RGB after",
             "# the resize to 32 x 32, to 80 x 80, and of RGB made before the resize to 32 x 32"]  # fmt: skip
    for path in sorted(SAMPLES.iterdir()):
        image = Image.open(path)
        image.load()
        loads = [crc(image.resize((r, r), Image.BICUBIC).convert("RGB").tobytes()) for r in (32, 80)]
        first = crc(image.convert("RGB").resize((32, 32), Image.BICUBIC).tobytes())
        lines.append("\t".join([path.name, image.mode, *map(str, image.size), crc(raw(image)), *loads, first]))
    (GOLDEN / "images.tsv").write_text("\n".join(lines) + "\n")


def photos():
    """Over real photographs: the first 50 of flickr8k-cn's validation set at three resolutions."""
    tsv = Path(os.environ.get("TW_SHARED", "../shared")) / "data/flickr8k-cn/valid_imgs.tsv"
    if not tsv.exists():
        print(f"{tsv} is not there: photos.tsv is left as it is")
        return
    with open(tsv) as lines:
        files = [base64.b64decode(next(lines).split("\t")[1]) for _ in range(50)]
    cells = [str(len(files))]
    for r in (224, 60, 240):
        loads = (Image.open(io.BytesIO(f)).resize((r, r), Image.BICUBIC).convert("RGB").tobytes() for f in files)
        cells += [str(r), crc(b"".join(struct.pack("<I", zlib.crc32(x)) for x in loads))]
    head = f"# Pillow {Image.__version__}: photographs, then resolution and CRC-32 of their pixels' CRC-32s, three times"
    (GOLDEN / "photos.tsv").write_text(f"{head}\n" + "\t".join(cells) + "\n")


# ---- resize ------------------------------------------------------------------------------------------


def resize():
    modes = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16"]
    draw = random.Random(4)
    sides = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 50, 64, 100, 129, 224, 256, 333, 336, 375, 500, 640]
    pairs = [(1, 1, 224, 224), (1, 224, 224, 224), (224, 1, 224, 224), (500, 375, 1, 1), (10000, 3, 224, 224),
             (3, 10000, 224, 224), (10000, 1, 7, 5), (1, 10000, 5, 7), (5, 3, 10000, 2), (3, 5, 2, 10000),
             (10000, 2, 9999, 2), (2, 10000, 2, 9999), (224, 224, 224, 224), (224, 300, 224, 224),
             (300, 224, 224, 224), (500, 375, 224, 224), (375, 500, 224, 224), (333, 500, 224, 224),
             (500, 333, 224, 224), (640, 480, 336, 336), (480, 640, 336, 336), (9, 9, 8, 8), (8, 8, 9, 9)]  # fmt: skip
    # around the rule that turns the order of the passes: rows removed > 2 * columns removed
    pairs += [(60, 80, 50, 59), (60, 80, 50, 60), (60, 80, 50, 61), (60, 80, 61, 79), (60, 80, 59, 79), (60, 80, 70, 81)]
    cases = [(mode, *pair) for pair in pairs for mode in (modes if max(pair) < 10000 else ["1", "L", "RGB", "RGBA", "I;16"])]
    while len(cases) < 620:
        cases.append((modes[len(cases) % len(modes)], *(draw.choice(sides) for _ in range(4))))
    lines = [f"# Pillow {Image.__version__}, BICUBIC: mode, width and height, new width and height, seed of the source,",
             "# crop (x, y, width, height) taken before, CRC-32"]  # fmt: skip
    for i, (mode, w, h, new_w, new_h) in enumerate(cases):
        image, box = pattern(mode, w, h, i), (0, 0, w, h)
        if i % 7 == 6 and w > 3 and h > 3:
            x, y = draw.randrange(w // 2), draw.randrange(h // 2)
            box = (x, y, draw.randrange(1, w - x), draw.randrange(1, h - y))
        out = image.crop((box[0], box[1], box[0] + box[2], box[1] + box[3])).resize((new_w, new_h), Image.BICUBIC)
        lines.append("\t".join(map(str, (mode, w, h, new_w, new_h, i, *box, crc(raw(out))))))
    (GOLDEN / "resize.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["decode", "resize"]
    if "decode" in wanted:
        decode()
        photos()
    if "resize" in wanted:
        resize()
