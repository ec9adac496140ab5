#!/usr/bin/env python3
"""Makes tests/golden/tokenizer.json and tokenizer_vocab.txt from the reference tokenizer.

    pip install cn_clip          # with Python 3.11: its Unicode is 14.0, older than any utf8proc the tests meet
    TW_SHARED=../shared python3 scripts/make_golden_tokenizer.py

Expected values come from cn_clip alone; tests/test_tokenizer.c says how each part is used. Only code points whose
properties are the same from Unicode 14.0 to 16.0 occur in it, so that the tests pass with every utf8proc since 2.6."""
import json
import os
import pathlib
import sys
import unicodedata

from cn_clip.clip.bert_tokenizer import FullTokenizer
from cn_clip.training.data import _preprocess_text

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
SHARED = pathlib.Path(os.environ.get("TW_SHARED", ROOT.parent / "shared")) / "data"
CONTEXT, CAPTION_BLOCK, SWEEP_BLOCK = 52, 500, 4096
RANDOM_SEED, RANDOM_COUNT, RANDOM_BLOCK = 20240229, 4000, 250
MASK = (1 << 64) - 1

ADVERSARIAL = [
    ("empty", ""), ("blank", " \t\r\n\u3000\u00a0 "), ("only dropped", "\x00\ufffd\u200b\u00ad\x7f\x85"),
    ("only accents", "\u0301\u0308 \u0301"), ("plain", "一只戴着红色帽子的狗在草地上奔跑。"),
    ("quotes", "“你好”‘世界’「图文」『书』《名》"), ("full-width forms", "ＡＢＣ　ｘｙｚ１２３，！（ｆｕｌｌ）～￥"),
    ("half-width kana", "ｶﾞｷﾞﾊﾟ ｱｲｳ"), ("circled and squared", "①②Ⓐⓩ ㍿㎏ ⅣⅨ ½¾"),
    ("emoji", "狗🐶在👩‍👩‍👧‍👦👍🏽草地❤️🇨🇳1️⃣奔跑"), ("keycaps and selectors", "#️⃣*️⃣a\ufe0fb\ufe0e"),
    ("combining accents", "e\u0301 é n\u0303o\u0308 a\u0323\u0302 a\u0302\u0323 ậ Ǖ"),
    ("marks out of order", "q\u0307\u0323\u1dce \u302e\u0316\u302f가\u302e\u1b44\u0301\u1b44"),
    ("mark after CJK", "中\u0301文\u20dd图\u0338"), ("enclosing mark", "a\u20dd b\u20e3"),
    ("CJK extensions", "㐀䶿𠀀𪛟𪜀𫜿𫝀𫠟𫠠𬺡𬺰𮯠𰀀丽"), ("compatibility ideographs", "豈更車\ufa0e\ufa11\uf900\U0002f800\U0002fa1d"),
    ("radicals and strokes", "⺀⼀⿰㇀"), ("U+3007", "二〇二四年〇"), ("kana", "スケートボード ひらがな が か\u3099 パ"),
    ("bopomofo", "ㄅㄆㄇ ㆠ"), ("hangul", "한국어 가 각 힣 ㄱ 한"), ("control characters", "a\x0bb\x0cc\x1cd\x1fe\x7ff\x85g\x00h"),
    ("blanks", "a\tb\nc\rd e\u00a0f\u2003g\u3000h\u1680i\u202fj\u205fk"),
    ("line separators", "a\u2028b\u2029c中\u2028文"), ("format characters", "a\u200bb\u200dc\u00add\u2060e\ufefff\u061cg\u180eh\U000e0041i"),
    ("replacement character", "a\ufffdb \ufffd"), ("private use", "a\ue000b \uf8ff \U000f0000 \U0010fffd"),
    ("noncharacters", "a\ufdd0b \uffff \U0001fffe \U0010ffff"), ("dotted capital I", "İstanbul İ İİ ıI"),
    ("final sigma", "ΟΔΥΣΣΕΥΣ ΑΣ Σ ΑΣΑ ΑΣ. ΑΣ.Α Α'Σ Σ' ΑΣ中 \u00adΣ Α\u00adΣ\u00ad ΑΣ\u0301 ΑΣ\u0301Α ΑΣ:Α 1Σ ªΣ ⅠΣ ⓐΣ ʰΣ"),
    ("sigma across blanks", "α Σ, α\u200bΣ\u200bα ΣΣ ΑΣΣ αΣ“α”"), ("sharp s and ligatures", "ẞ ß ﬁ ŉ ǰ ΐ ǅ Ǆ"),
    ("Å K Ω signs", "Å K Ω Å \u212a\u030a"), ("Georgian and Cherokee", "ᲐᲑ აბ ᏣᎳᎩ ꭰ"), ("Deseret and Adlam", "𐐀𐐨 𞤀𞤢"),
    ("Greek with iota", "ᾳ ᾼ ᾂ Ώ ῼ"), ("Cyrillic", "Йогурт Ёлка Їжак"), ("Arabic", "السَّلَامُ عَلَيْكُم آ ؟"),
    ("Devanagari", "नमस्ते क़ ।"), ("Thai", "สวัสดีครับ น้ำ"), ("Tibetan", "བོད་ ༄༅"), ("Hebrew", "שָׁלוֹם שּׁ"),
    ("punctuation", "a-b_c.d,e!f?g…h—i·j•k‰l¿m§n¶o"), ("ASCII symbols", "$1+2=3 <a> ^b^ `c` |d| ~e~ a@b.cn #tag"),
    ("symbols stay", "a€b £5 ¥ © ® ™ ° ± × ÷ ← ∑ ♥ ☃"), ("decomposes to punctuation", "a\u037eb a\u0387b a\u1fefb a\u2329b\u232a"),
    ("special tokens in text", "[CLS] [SEP] [PAD] [UNK] [MASK] ##ing"), ("word pieces", "skateboarding unaffable Playing SNOWBOARDERS"),
    ("no piece fits", "xyzzyqq\u4e00 a\ua500b zz\u13a0"), ("mixed", "iPhone14ProMax手机壳128GB（黑色）$99.9"), ("URL", "https://www.example.com/图片?id=42&x=狗#top"),
    ("200 letters", "a" * 200), ("201 letters", "a" * 201), ("300 letters", "word " + "b" * 300 + " word"),
    ("200 after accents", "é" * 200 + " " + "e\u0301" * 201), ("201 split by a mark", "c" * 150 + "." + "d" * 150),
    ("300 kana", "ア" * 300), ("long CJK", "图文检索" * 40), ("50 tokens", "狗" * 50), ("51 tokens", "狗" * 51),
    ("cut inside a word", "狗" * 48 + "snowboarding"), ("long blanks", " " * 600 + "狗" + "\u3000" * 600), ("600 marks", "e" + "\u0301\u0323" * 300),
]
SHORT = [("context 2", "狗在跑", 2), ("context 3", "狗在跑", 3), ("context 5", "狗在跑", 5), ("context 4", "狗在跑", 4), ("context 2, empty", "", 2)]
HOT = [0x20, 0x27, 0x2E, 0x3A, 0xAD, 0x130, 0x131, 0x3A3, 0x3C2, 0x345, 0x37E, 0x1E9E, 0x200B, 0x200D, 0x2028, 0x201C, 0x201D, 0x3000, 0x3007, 0xFE0F, 0xFFFD, 0]


def fold(h, value):
    return ((h ^ value) * 0x100000001B3) & MASK


HASH_START = 0xCBF29CE484222325


def reference_ids(tokenizer, text, context):
    """What cn_clip.clip.tokenize does, with any vocabulary; returns the padded row and the uncut length."""
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
    row = [tokenizer.vocab["[CLS]"]] + ids[:context - 2] + [tokenizer.vocab["[SEP]"]]
    return row + [0] * (context - len(row)), len(ids) + 2


def fold_ids(h, tokenizer, text):
    row, full = reference_ids(tokenizer, text, CONTEXT)
    for value in row + [full]:
        h = fold(h, value)
    return h


def fold_words(h, tokenizer, text):
    for word in tokenizer.basic_tokenizer.tokenize(text):
        for c in word:
            h = fold(h, ord(c))
        h = fold(h, 0xFFFFFFFF)
    return fold(h, 0xFFFFFFFE)


def allowed_ranges():
    """Assigned in 14.0 and unchanged since; of the private-use characters only some."""
    keep = bytearray(0x110000)
    for c in range(0x110000):
        kind = unicodedata.category(chr(c))
        nonchar = (c & 0xFFFE) == 0xFFFE or 0xFDD0 <= c <= 0xFDEF
        private = kind == "Co" and not (c & 0xFFF) < 16 and c not in (0xF8FF, 0x10FFFD)
        keep[c] = nonchar or (kind not in ("Cn", "Cs") and not private and c != 0x1171E)  # Mn until 15.1, then Mc
    ranges, c = [], 0
    while c < 0x110000:
        if keep[c]:
            start = c
            while c < 0x110000 and keep[c]:
                c += 1
            ranges += [start, c - 1]
        c += 1
    return ranges


def splitmix(state):
    state[0] = (state[0] + 0x9E3779B97F4A7C15) & MASK
    z = state[0]
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def random_text(index, ranges):
    """The same in tests/test_tokenizer.c."""
    state = [(RANDOM_SEED << 32) + index]
    text = []
    for _ in range(1 + splitmix(state) % 40):
        kind, r = splitmix(state) % 8, splitmix(state)
        if kind < 3:
            k = 2 * (r % (len(ranges) // 2))
            c = ranges[k] + (r >> 32) % (ranges[k + 1] - ranges[k] + 1)
        elif kind == 3:
            c = HOT[r % len(HOT)]
        elif kind == 4:
            c = 0x4E00 + r % 0x5200
        elif kind == 5:
            c = 0x300 + r % 0x70
        else:
            c = 0x20 + r % 0x5F
        text.append(chr(c))
    return "".join(text)


def small_vocabulary(path):
    """Pieces of the adversarial words, so that few of them are [UNK]; with a blank and a repeated line."""
    big = FullTokenizer()
    begin, cont = set("abcdefghijklmnopqrstuvwxyz0123456789"), set("abcdefghijklmnopqrstuvwxyz0123456789")
    for _, text in ADVERSARIAL:
        for word in big.basic_tokenizer.tokenize(text):
            begin.add(word[0])
            cont.update(word[1:])
    drop = set("\ua500\u13a0q\U000f0000")
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u3000", "snow", "##board", "##ing", "##boarding", "skate", "aa", "##aaa", "スケ", "狗"]
    lines += sorted(begin - drop) + ["##" + c for c in sorted(cont - drop)]
    path.write_text("\n".join(lines + ["\u00a0##er\t", "snow", "  phone"]) + "\n", encoding="utf-8")


def captions():
    for name in ("train_texts.jsonl", "valid_texts.jsonl"):
        with open(SHARED / "flickr8k-cn" / name, encoding="utf-8") as lines:
            yield from (json.loads(line)["text"] for line in lines)


def blocks(texts, size, fold_one):
    out, h, n = [], HASH_START, 0
    for text in texts:
        h, n = fold_one(h, text), n + 1
        if n % size == 0:
            out.append(h)
            h = HASH_START
    return [f"{x:016x}" for x in out + ([h] if n % size else [])]


def sweep(tokenizer, ranges, prepare):
    """{block of 4,096 code points: hash of the words around each of its characters}"""
    out = {}
    for lo, hi in zip(ranges[::2], ranges[1::2]):
        for code in range(lo, hi + 1):
            c, key = chr(code), str(code // SWEEP_BLOCK)
            text = prepare("x\u03a3" + c + "\u03a3 " + c + "A\u03a3" + c)
            out[key] = fold_words(out.get(key, HASH_START), tokenizer, text)
    return {k: f"{h:016x}" for k, h in out.items()}


def adversarial(big, small):
    cases = [(name, text, CONTEXT) for name, text in ADVERSARIAL] + SHORT
    out = []
    for name, text, context in cases:
        for normalise in (False, True):
            seen = _preprocess_text(text) if normalise else text
            case = {"name": name, "text": text, "normalise": normalise, "context": context}
            for key, tokenizer in (("small", small), ("big", big)):
                row, full = reference_ids(tokenizer, seen, context)
                length = min(full, context)
                case[key], case[key + "_full"] = row[:length], full
            out.append(case)
    return out


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"Unicode 14.0.0 is needed (Python 3.11); this Python has {unicodedata.unidata_version}")
    GOLDEN.mkdir(exist_ok=True)
    small_vocabulary(GOLDEN / "tokenizer_vocab.txt")
    big, small = FullTokenizer(), FullTokenizer(vocab_file=str(GOLDEN / "tokenizer_vocab.txt"))
    ranges = allowed_ranges()
    texts = list(captions())
    random = [random_text(i, ranges) for i in range(RANDOM_COUNT)]
    plain = lambda text: text
    golden = {"context": CONTEXT, "caption_block": CAPTION_BLOCK, "captions": len(texts), "ranges": ranges, "hot": HOT,
              "sweep_block": SWEEP_BLOCK, "random_seed": RANDOM_SEED, "random_count": RANDOM_COUNT, "random_block": RANDOM_BLOCK}
    for key, prepare in (("quick", plain), ("normalised", _preprocess_text)):
        golden[key] = {
            "captions": blocks(texts, CAPTION_BLOCK, lambda h, t: fold_ids(h, big, prepare(t))),
            "random_words": blocks(random, RANDOM_BLOCK, lambda h, t: fold_words(h, big, prepare(t))),
            "random_small": blocks(random, RANDOM_BLOCK, lambda h, t: fold_ids(h, small, prepare(t))),
            "random_big": blocks(random, RANDOM_BLOCK, lambda h, t: fold_ids(h, big, prepare(t))),
            "sweep": sweep(big, ranges, prepare),
        }
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden.items()]
    cases = ",\n".join(json.dumps(c, separators=(",", ":")) for c in adversarial(big, small))
    (GOLDEN / "tokenizer.json").write_text("{\n" + ",\n".join(lines) + ',\n"adversarial": [\n' + cases + "\n]}\n")


if __name__ == "__main__":
    main()
