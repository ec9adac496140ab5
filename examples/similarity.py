#!/usr/bin/env python3
"""examples/similarity.c from Python, by ctypes alone: python3 similarity.py model.h5 photo.jpg 一只猫 一条狗"""
import ctypes as c
import sys

lib = c.CDLL("libtuwen.so.0")  # LD_LIBRARY_PATH says where, if it is not installed
floats, texts_t = c.POINTER(c.c_float), c.POINTER(c.c_char_p)
lib.tuwen_error.restype = c.c_char_p
lib.tuwen_load.argtypes = [c.c_char_p, c.c_void_p, c.POINTER(c.c_void_p)]
lib.tuwen_free.argtypes = [c.c_void_p]
lib.tuwen_embed_dim.argtypes = [c.c_void_p]
lib.tuwen_encode_image_files.argtypes = [c.c_void_p, c.c_int64, texts_t, floats, c.POINTER(c.c_int32)]
lib.tuwen_encode_texts.argtypes = [c.c_void_p, c.c_int64, texts_t, c.POINTER(c.c_size_t), floats, c.POINTER(c.c_int64)]
lib.tuwen_probabilities.argtypes = [c.c_void_p, c.c_int64, floats, c.c_int64, floats, floats]


def check(status):
    if status:
        raise SystemExit("similarity.py: " + lib.tuwen_error().decode())


def main(checkpoint, image, *texts):
    model = c.c_void_p()
    check(lib.tuwen_load(checkpoint.encode(), None, c.byref(model)))
    n, dim = len(texts), lib.tuwen_embed_dim(model)
    image_features, text_features, chances = (c.c_float * dim)(), (c.c_float * (n * dim))(), (c.c_float * n)()
    paths, strings = (c.c_char_p * 1)(image.encode()), (c.c_char_p * n)(*[t.encode() for t in texts])
    check(lib.tuwen_encode_image_files(model, 1, paths, image_features, None))
    check(lib.tuwen_encode_texts(model, n, strings, None, text_features, None))
    check(lib.tuwen_probabilities(model, 1, image_features, n, text_features, chances))
    for chance, text in zip(chances, texts):
        print(f"{100 * chance:6.2f} %  {text}")
    lib.tuwen_free(model)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit("usage: similarity.py CHECKPOINT IMAGE TEXT...")
    main(*sys.argv[1:])
