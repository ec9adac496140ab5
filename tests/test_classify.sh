#!/usr/bin/env bash
# `tuwen classify` and `tuwen similarity` end to end, on a folder of drawn images. Argument: the build folder.
set -u
. tests/shell.sh "$1"
images=$PWD/tests/golden/images

has() { # NAME TEXT [FILE]: the last output contains TEXT
    if grep -qF -- "$2" "${3:-$work/out}"; then ok; else fail "$1: no '$2'"; fi
}

holds "shapes" "$tuwen" shapes "$work/data" --train 40 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$work/data" --splits train
echo '"' >>"$work/data/vocab.txt" # “ stays unknown
holds "train" "$tuwen" train --model micro --train_data "$work/data/lmdb/train" --vocab "$work/data/vocab.txt" \
    --output "$work/run" --batch 20 --max_steps 2 --threads 1
model=$work/run/latest

# ---- classify ----
set=$work/set
mkdir -p "$set"/test/{0,1,2}/more
printf '红色的圆形\n\n蓝色的方块\n' >"$set/label_cn.txt"
cp "$images/jpeg_420.jpg" "$images/jpeg_gray.jpg" "$set/test/0"
cp "$images/png_palette8.png" "$images/png_rgba8.png" "$set/test/1/more"
cp "$images/webp_lossy.webp" "$set/test/2"
cp "$images/png_gray16.png" "$set/test/2/more"
classify() { "$tuwen" classify --checkpoint "$model" --data "$set" --threads 1 "$@"; }

holds "classify" classify --output "$work/scores.json" --predictions "$work/a.json" --dataset_name shapes
has "the scores" "(6 images, 3 classes, 25 templates)"
has "the table" "蓝色的方块"
cp "$work/out" "$work/first"
holds "in batches, with more threads" classify --batch 2 --num_workers 4 --predictions "$work/b.json"
if diff "$work/out" "$work/first" >/dev/null; then ok; else fail "scores depend on the batch"; fi
has "the data set's name" '"dataset_name": "set"' "$work/b.json"
echo '[5, 4, 3, 2, 1, 0]' >"$work/index.json"
holds "index" classify --predictions "$work/c.json" --index "$work/index.json"
printf '{}\n{}\n' >"$work/twice.txt"
printf '{}\n' >"$work/once.txt"
holds "a template twice" classify --templates "$work/twice.txt" --predictions "$work/twice.json"
has "counts twice" "2 templates"
holds "a template" classify --templates "$work/once.txt" --predictions "$work/once.json"

# Rows, orders and scores of the files belong together.
if command -v python3 >/dev/null; then
    cat >"$work/check.py" <<'PYTHON'
import json
import sys
work = sys.argv[1]
load = lambda name: json.load(open(f"{work}/{name}.json"))
scores, a, b, c, once, twice = (load(n) for n in ("scores", "a", "b", "c", "once", "twice"))
distance = lambda p, q: max(abs(x - y) for r, s in zip(p["predictions"][0], q["predictions"][0]) for x, y in zip(r, s))
rows = a["predictions"][0]
assert len(rows) == 6 and all(len(r) == 3 and abs(sum(r) - 1) < 3e-6 for r in rows), rows
assert distance(a, b) <= 2e-6
assert max(abs(x - y) for r, s in zip(reversed(rows), c["predictions"][0]) for x, y in zip(r, s)) <= 1e-12
assert distance(once, twice) <= 2e-6 < distance(once, a)  # the mean of two equal features is the same
target = [0, 0, 1, 1, 2, 2]
first = [r.index(max(r)) for r in rows]
table = [[sum(t == i and f == j for t, f in zip(target, first)) for j in range(3)] for i in range(3)]
assert scores["confusion"] == table, (scores["confusion"], table)
assert abs(scores["top1"] - 100 * sum(map(int.__eq__, target, first)) / 6) < 1e-9
assert scores["top5"] == 100 and scores["bad_images"] == []
assert [c["label"] for c in scores["classes"]] == ["红色的圆形", "", "蓝色的方块"]
assert all(c["images"] == 2 for c in scores["classes"])
PYTHON
    holds "the files agree" python3 "$work/check.py" "$work"
else
    echo "SKIP the files agree: no python3"
fi

echo "no image" >"$set/test/2/z.jpg"
holds "a bad image" classify --output "$work/bad.json"
has "is named" "test/2/z.jpg: not an image" "$work/err"
has "and counted" "1 images are bad and not counted"
has "and not scored" "(6 images, 3 classes"
has "and in the scores" 'z.jpg"' "$work/bad.json"
refuses "predictions without a row" 1 "needs a row for every image, and 1 are bad" classify --predictions "$work/d.json"
if [ -e "$work/d.json" ]; then fail "a file with missing rows"; else ok; fi
rm "$set/test/2/z.jpg"
echo BM >"$set/test/2/y.bmp"
holds "an image of a kind that is not decoded" classify --output "$work/kinds.json" --predictions "$work/kinds-p.json"
has "it is named" "first $set/test/2/y.bmp" "$work/err"
has "it is counted" "1 images of kinds that are not decoded here are not counted"
has "it is in the scores" '"undecoded_images":1' "$work/kinds.json"
refuses "it shifts the index" 1 "--index numbers all images of the set" classify --predictions "$work/d.json" --index "$work/index.json"
rm "$set/test/2/y.bmp"
refuses "a long index" 1 "element 0 is 6" classify --predictions "$work/d.json" --index <(echo '[6]')
refuses "index alone" 2 "--index orders the rows of --predictions" classify --index "$work/index.json"
refuses "no data" 2 "--data is missing" "$tuwen" classify --checkpoint "$model"
refuses "no checkpoint" 2 "--checkpoint is missing" "$tuwen" classify --data "$set"
refuses "no braces" 1 "no {} for the label" classify --templates "$set/label_cn.txt"
echo 一个 >>"$set/label_cn.txt"
refuses "a label too many" 1 "no folder for label 3, '一个'" classify
printf '红\n' >"$work/short.txt"
refuses "a label too few" 1 "folder '1' has no label" classify --labels "$work/short.txt"
rm -r "$set/test/1/more" && sed -i '$d' "$set/label_cn.txt"
refuses "an empty class" 1 "test/1: a class without an image" classify

# ---- similarity ----
similarity() { "$tuwen" similarity --checkpoint "$model" "$@"; }
holds "similarity" similarity "$images/jpeg_420.jpg" 红色的圆形 "“蓝色”的方块"
awk '/%/ { n++; sum += $1 } END { exit !(n == 2 && sum > 99.98 && sum < 100.02) }' "$work/out" && ok || fail "not 100 % together"
holds "several images" similarity --json "$images/jpeg_420.jpg" --image "$images/webp_lossy.webp" 红色 蓝色 绿色
if command -v python3 >/dev/null; then
    cat >"$work/check.py" <<'PYTHON'
import json
import math
import sys
found = json.load(open(sys.argv[1]))
assert found["texts"] == ["红色", "蓝色", "绿色"] and len(found["images"]) == 2
assert found["images"][1]["image"].endswith("webp_lossy.webp")
for image in found["images"]:
    total = sum(math.exp(x) for x in image["logits"])
    assert max(abs(math.exp(x) / total - p) for x, p in zip(image["logits"], image["probabilities"])) < 1e-6
PYTHON
    cp "$work/out" "$work/similarity.json"
    holds "its JSON" python3 "$work/check.py" "$work/similarity.json"
else
    echo "SKIP its JSON: no python3"
fi
# The quick API leaves “ as it is, and the vocabulary does not have it: another text than with ".
holds "quotes" similarity --json "$images/jpeg_420.jpg" “红色” '"红色"'
if [ "$(grep -c '"红色"\|“红色”' "$work/out")" -ge 1 ] && ! grep -q '0\.5,\|0\.500000000' "$work/out"; then ok; else fail "quotes were replaced"; fi
holds "long texts" similarity "$images/jpeg_420.jpg" "$(printf '红%.0s' {1..40})" 蓝
has "are told" "1 of 2 texts are longer than the context" "$work/err"
refuses "no text" 2 "TEXT is missing" similarity "$images/jpeg_420.jpg"
refuses "no image" 2 "IMAGE is missing" similarity
refuses "a missing image" 1 "none.jpg: No such file" similarity "$work/none.jpg" 红
refuses "a folder" 1 "not a file but a folder" similarity "$work" 红
refuses "text that is not UTF-8" 1 "text number 2" similarity "$images/jpeg_420.jpg" 红 $'\xff'

finish
