#!/usr/bin/env bash
# `tuwen extract` on three ranks against one: image files among which one rank's are bad, texts as lines and as JSON lines, in
# every format; and killed on three ranks, then resumed on one, and the other way round. Argument: the build folder.
set -u
. tests/shell.sh "$1"
if "$tuwen" doctor 2>/dev/null | grep -q "MPI .*not in this build" || ! command -v mpirun >/dev/null; then
    echo "SKIP extraction over ranks: this build has no MPI, or mpirun is not installed"
    finish
    exit
fi
on() { # RANKS COMMAND...
    local ranks=$1
    shift
    timeout 600 bash tests/mpirun.sh "$ranks" "$@"
}
equal() { # NAME A B: files are
    if cmp "$2" "$3" >"$work/out" 2>"$work/err"; then ok; else fail "$1"; fi
}

data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 40 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train
holds "a model" "$tuwen" train --model micro --train_data "$data/lmdb/train" --vocab "$data/vocab.txt" --batch 20 --max_steps 1 \
    --warmup 0 --threads 1 --report false --output "$work/run"
model=$work/run/latest

# Batches of 4 go to ranks 0, 1, 2, 0, 1, …: the second batch, all of it, and one image of the fifth are bad, and rank 1's.
mkdir -p "$work/photos/more"
good=(jpeg_420.jpg jpeg_gray.jpg png_rgb8.png png_palette8.png webp_lossless_alpha.webp jpeg_444.jpg)
for ((i = 0; i < 38; i++)); do
    name=${good[i % ${#good[@]}]}
    cp "tests/golden/images/$name" "$(printf '%s/photos/more/%02d.%s' "$work" $i "${name##*.}")"
done
bad=(04 05 06 07 17)
for i in "${bad[@]}"; do
    file=$(echo "$work"/photos/more/$i.*)
    head -c 300 "$file" >"$work/cut" && mv "$work/cut" "$file"
done
find "$work/photos" -type f | sort | awk '{ print "id " NR "\t" $0 }' >"$work/list.tsv"
for ((i = 0; i < 31; i++)); do printf '一只%d狗在第%d个公园里\n' $((i * 7)) $i; done >"$work/texts.txt"
awk '{ printf "{\"text_id\": %d, \"text\": \"%s\"}\n", 1000 - NR, $0 }' "$work/texts.txt" >"$work/texts.jsonl"

extract() { # RANKS FOLDER OPTIONS...
    local ranks=$1 folder=$2
    shift 2
    on "$ranks" "$tuwen" extract --checkpoint "$model" --output "$folder" --batch 4 --threads 1 "$@"
}
for n in 1 3; do
    for format in h5 npy jsonl; do
        holds "images on $n ranks, $format" extract $n "$work/$n" --images "$work/photos" --format $format
        [ "$(grep -c "; left out" "$work/err")" = ${#bad[@]} ] && ok || fail "$n ranks, $format: not ${#bad[@]} bad images are named"
        if [ $n = 3 ]; then
            [ "$(grep -c "rank 1: .*more/\(0[4-7]\|17\).*; left out" "$work/err")" = ${#bad[@]} ] && ok || fail "the bad ones are not rank 1's"
        fi
        grep -q "33 images, .*5 bad images left out" "$work/out" && ok || fail "$n ranks, $format: not counted"
        holds "a list on $n ranks, $format" extract $n "$work/$n" --images "$work/list.tsv" --format $format
        holds "lines on $n ranks, $format" extract $n "$work/$n" --texts "$work/texts.txt" --format $format --name lines
        holds "JSON lines on $n ranks, $format" extract $n "$work/$n" --texts "$work/texts.jsonl" --format $format --name records
    done
done
[ "$(find "$work/1" -name '*.jsonl' | wc -l)" = 8 ] && ok || fail "files are missing: $(ls "$work/1" | tr '\n' ' ')"
[ "$(ls "$work/1")" = "$(ls "$work/3")" ] && ok || fail "other files: $(ls "$work/3" | tr '\n' ' ')"
for file in "$work"/1/*; do equal "3 ranks write the same $(basename "$file")" "$file" "$work/3/$(basename "$file")"; done
refuses "standard input on ranks" 2 "reaches rank 0 alone" extract 3 "$work/x" --texts -

# ---- interrupted ----
for ((i = 0; i < 400; i++)); do cat "$work/texts.txt"; done | awk '{ print $0 NR }' >"$work/many.txt"
left() { pgrep -f "^$tuwen extract .*--output $work" | wc -l; }
# interrupted RANKS OTHERS: killed on RANKS in the middle, resumed on OTHERS. A quick machine may be done before: then again.
interrupted() {
    local n=$1 others=$2 folder=$work/from$1 options pid try
    options=(--checkpoint "$model" --batch 4 --threads 1 --texts "$work/many.txt" --name many)
    for try in 1 2 3 4 5 6 7 8; do
        rm -rf "$folder" && mkdir "$folder"
        bash tests/mpirun.sh "$n" "$tuwen" extract "${options[@]}" --output "$folder" >"$work/out" 2>"$work/err" &
        pid=$!
        until [ -n "$(find "$folder" -name '.many*.part' -size +99k)" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null
        for _ in $(seq 600); do [ "$(left)" = 0 ] && break; sleep 0.1; done
        [ -e "$folder/many_texts.txt_feat.h5" ] || break
    done
    [ "$(left)" = 0 ] && ok || fail "killed on $n ranks: processes are left"
    holds "killed on $n ranks, resumed on $others" on "$others" "$tuwen" extract "${options[@]}" --output "$folder"
    grep -q "12400 texts, .* [1-9][0-9]* of an interrupted run" "$work/out" && ok || fail "killed on $n ranks: $others go on from the start"
    equal "killed on $n ranks, resumed on $others" "$work/whole/many_texts.txt_feat.h5" "$folder/many_texts.txt_feat.h5"
}
holds "undisturbed" extract 1 "$work/whole" --texts "$work/many.txt" --name many
interrupted 3 1
interrupted 1 3
finish
