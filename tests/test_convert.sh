#!/usr/bin/env bash
# Weight files of other tools in and out, on small files of the reference implementations (scripts/
# make_golden_convert.py). Argument: the build folder.
set -u
. tests/shell.sh "$1"
list=$build/tests/tool_weights_list
golden=tests/golden/convert

# same NAME A B: two weight files hold the same tensors, to the bit
same() {
    local a b
    a=$($list "$2" 2>&1 | sort) && b=$($list "$3" 2>&1 | sort) && [ -n "$a" ] && [ "$a" = "$b" ] && { ok; return; }
    fail "$1"
    diff <(echo "$a") <(echo "$b") | head -n 4
}
equal() { # NAME A B: files
    if cmp -s "$2" "$3"; then ok; else fail "$1: $2 and $3 differ"; fi
}
says() { # NAME TEXT: the last command's output contains it
    if cat "$work/out" "$work/err" | grep -qF -- "$2"; then ok; else fail "$1: no '$2' in the output"; fi
}
vocab=$golden/vocab.txt
small=$golden/small.yaml
convert() { "$tuwen" convert "$@"; }

# There and back, to the bit.
holds "pt to h5" convert "$golden/original.pt" "$work/original.h5" --vocab "$vocab"
holds "h5 to pt" convert "$work/original.h5" "$work/original.pt"
same "original.pt through h5" "$golden/original.pt" "$work/original.pt"
holds "hf to h5" convert "$golden/hf" "$work/hf.h5"
holds "h5 to hf" convert "$work/hf.h5" "$work/hf"
same "hf through h5" "$golden/hf" "$work/hf"
equal "vocabulary through h5" "$vocab" "$work/hf/vocab.txt"
# rates FOLDER: the text tower's dropout, in config.json
rates() { grep -E '"(hidden_dropout_prob|attention_probs_dropout_prob)"' "$1/config.json" | tr -d ' ,' | sort | tr '\n' ' '; }
keeps() { # NAME FOLDER HIDDEN ATTENTION
    [ "$(rates "$2")" = "\"attention_probs_dropout_prob\":$4 \"hidden_dropout_prob\":$3 " ] && ok || fail "$1: dropout is $(rates "$2")"
}
keeps "dropout through h5" "$work/hf" 0.1 0.1
cp -r "$golden/hf" "$work/hf-rates"
sed -i 's/"hidden_dropout_prob": 0.1/"hidden_dropout_prob": 0.25/; s/"attention_probs_dropout_prob": 0.1/"attention_probs_dropout_prob": 0.0/' "$work/hf-rates/config.json"
holds "hf with other dropout to h5" convert "$work/hf-rates" "$work/hf-rates.h5"
holds "and back" convert "$work/hf-rates.h5" "$work/hf-rates2"
keeps "other dropout through h5" "$work/hf-rates2" 0.25 0.0
holds "hf with other dropout to hf" convert "$work/hf-rates" "$work/hf-rates3"
keeps "other dropout at once" "$work/hf-rates3" 0.25 0.0
for name in bare legacy; do
    holds "$name.pt to h5" convert "$golden/$name.pt" "$work/$name.h5" --vocab "$vocab" --model "$small"
    holds "h5 to $name.pt" convert "$work/$name.h5" "$work/$name.pt"
    same "$name.pt through h5" "$golden/$name.pt" "$work/$name.pt"
done
holds "resnet to h5" convert "$golden/resnet.pt" "$work/resnet.h5" --vocab "$vocab" --model "$golden/resnet.yaml"
holds "resnet to pt" convert "$work/resnet.h5" "$work/resnet.pt"
same "resnet.pt through h5, batch counters too" "$golden/resnet.pt" "$work/resnet.pt"
refuses "resnet to hf" 1 "Hugging Face" convert "$work/resnet.h5" "$work/resnet-hf"
holds "optimizer state to h5" convert "$golden/training.pt" "$work/training.h5" --optimizer --vocab "$vocab" --model "$small"
holds "optimizer state to pt" convert "$work/training.h5" "$work/training.pt" --optimizer
same "training.pt through h5" "$golden/training.pt" "$work/training.pt"
holds "pt to pt" convert "$golden/training.pt" "$work/weights.pt" --vocab "$vocab" --model "$small"
"$list" "$work/weights.pt" >"$work/out" 2>&1
if grep -q optimizer "$work/out"; then fail "weights only"; else ok; fi
holds "flash names to pt" convert "$golden/flash.pt" "$work/flash.pt" --vocab "$vocab" --model "$small"
same "flash names become the original's" "$golden/legacy.pt" "$work/flash.pt"
holds "pt to f32" convert "$golden/original.pt" "$work/f32.pt" --precision f32 --vocab "$vocab"
holds "f32 to f16" convert "$work/f32.pt" "$work/f16.pt" --precision f16 --vocab "$vocab"
"$list" "$golden/original.pt" | grep -v pooler | sort >"$work/a"
"$list" "$work/f16.pt" | grep -v pooler | sort >"$work/b"
equal "f16 is the published mixture" "$work/a" "$work/b"
holds "pt to hf" convert "$golden/original.pt" "$work/fromoriginal" --vocab "$vocab"
says "what is left out" "2 tensors that no model needs left out"
keeps "dropout of an original" "$work/fromoriginal" 0.1 0.1

# The same features, whatever the file.
data=$work/data
holds "shapes" "$tuwen" shapes "$data" --train 24 --valid 24 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid
extract() { # NAME CHECKPOINT OPTIONS
    local out=$work/features-$1 checkpoint=$2
    shift 2
    "$tuwen" extract --checkpoint "$checkpoint" --data "$data/lmdb/valid" --output "$out" --name f --format jsonl "$@"
}
holds "extract from pt" extract pt "$golden/original.pt" --vocab "$vocab"
holds "extract from hf" extract hf "$golden/hf"
holds "extract from h5" extract h5 "$work/original.h5"
holds "extract from written hf" extract hf2 "$work/fromoriginal"
for part in imgs.img_feat texts.txt_feat; do
    for kind in hf h5 hf2; do
        equal "features of $kind ($part)" "$work/features-pt/f_$part.jsonl" "$work/features-$kind/f_$part.jsonl"
    done
done
holds "extract at another resolution" extract larger "$golden/original.pt" --vocab "$vocab" --resolution 40 --context_length 20
says "resizing is said" "positional grid resized from 2 x 2 to 5 x 5"

# Training from other tools' files, and back to them.
train() { # FOLDER OPTIONS
    local out=$1
    shift
    "$tuwen" train --train_data "$data/lmdb/train" --vocab "$vocab" --output "$out" --batch 8 --max_steps 3 --warmup 1 \
        --lr 1e-3 --threads 1 --report false "$@"
}
holds "train from pt" train "$work/run" --init "$golden/original.pt"
says "AdamW's numbers are those of a vit" "AdamW: beta2 0.98 (auto), eps 1e-06 (auto); auto: the original's for a ViT image tower"
holds "train from hf" train "$work/run2" --init "$golden/hf"
cp -r "$work/hf" "$work/grey"
tr -d '\n' <"$work/hf/preprocessor_config.json" | sed 's/"image_mean": *\[[^]]*\]/"image_mean": [0.5, 0.5, 0.5]/' >"$work/grey/preprocessor_config.json"
holds "train from hf with other pixel statistics" train "$work/run4" --init "$work/grey"
says "other pixel statistics are said" "normalises pixels otherwise than CLIP (mean 0.5000 0.5000 0.5000"
holds "train at another resolution" train "$work/run3" --init "$golden/original.pt" --resolution 24 --context_length 16
says "resizing is said in training" "positional grid resized from 2 x 2 to 3 x 3"
holds "trained model to pt" convert "$work/run" "$work/run.pt" --optimizer
holds "trained model to hf" convert "$work/run" "$work/run-hf" --precision bf16
holds "trained model back" convert "$work/run.pt" "$work/run.h5" --optimizer --vocab "$vocab"
holds "and to pt again" convert "$work/run.h5" "$work/run-again.pt" --optimizer
same "trained weights and moments through pt and h5" "$work/run.pt" "$work/run-again.pt"
holds "train a resnet at another resolution" train "$work/resnet" --init "$golden/resnet.pt" --model "$golden/resnet.yaml" --resolution 96
says "resizing of the attention pool is said" "positional grid resized from 2 x 2 to 3 x 3"
says "AdamW's numbers are those of a resnet" "AdamW: beta2 0.999 (auto), eps 1e-08 (auto); auto: the original's for a ResNet image tower"
holds "trained resnet to pt" convert "$work/resnet" "$work/resnet-trained.pt" --optimizer
"$list" "$work/resnet-trained.pt" >"$work/out" 2>&1
says "and go into the .pt" "betas 0.9 0.999 eps 1e-08"
says "a counter beside the statistics" "module.visual.bn1.num_batches_tracked i64 ()"
# A run of a build that took the ViT's numbers for every tower goes on with them.
holds "train a resnet otherwise" train "$work/resnet2" --init "$golden/resnet.pt" --model "$golden/resnet.yaml" --beta2 0.98 --eps 1e-6
grep -q "AdamW: beta2" "$work/out" && fail "given numbers are called auto" || ok
holds "and go on" train "$work/resnet2" --resume latest --max_steps 4
says "a resumed run's own numbers" "AdamW: beta2 0.98 (auto), eps 1e-06 (auto); auto: as in the resumed run"
grep "differs from the resumed" "$work/out" "$work/err" | grep -qv "max_steps was 3, is 4" && fail "a difference that is none" || ok
holds "go on once more" train "$work/resnet2" --resume latest --max_steps 5 --beta2 0.9
says "a change is said" "beta2 was 0.98, is 0.9"
holds "go on with an imported optimizer" train "$work/resumed" --resume "$work/training.h5" --max_steps 79
says "its position" "step 77, epoch 4"
refuses "going on without moments" 1 "start from it with --init" train "$work/resumed2" --resume "$work/original.h5"
holds "train from two towers" train "$work/parts" --init_image "$golden/clip.pt" --init_text "$golden/bert" --model "$small"
says "the image tower is named" "image tower from $golden/clip.pt"
says "the text tower is named" "text tower from $golden/bert"

# info
holds "info of pt" "$tuwen" info "$golden/original.pt" --batch 8
says "info: types" "f16:"
says "info: memory" "training_mb:"
says "info: step" "step: 77"
holds "info of hf" "$tuwen" info "$golden/hf" --json
says "info: kind" "Hugging Face folder"
holds "info of a tower" "$tuwen" info "$golden/bert"
says "info: not a whole model" "not_a_whole_model:"
holds "info of a model whose heads shapes do not tell" "$tuwen" info "$golden/bare.pt"
says "info: only the heads are missing" "heads_not_known:"
grep -q not_a_whole_model "$work/out" && fail "a whole model is called none" || ok
holds "info with a description" "$tuwen" info "$golden/bare.pt" --model "$small"
refuses "info with another description" 2 "it is another architecture" "$tuwen" info "$golden/original.pt" --model "$small"
refuses "info of a text" 1 "is nothing that tuwen knows" "$tuwen" info README.md
says "info: what is known" "safetensors"
holds "a folder is made for the file" convert "$golden/original.pt" "$work/new/er/x.pt" --vocab "$vocab"
holds "and for a checkpoint" convert "$golden/original.pt" "$work/new2/er/x.h5" --vocab "$vocab"

# What cannot be done, and why.
cp "$golden/original.pt" "$work/alone.pt"
refuses "where the vocabulary was looked for" 1 "$work/vocab.txt" convert "$work/alone.pt" "$work/none"
refuses "out is there" 2 "--force" convert "$golden/original.pt" "$work/original.pt" --vocab "$vocab"
holds "force" convert "$golden/original.pt" "$work/original.pt" --vocab "$vocab" --force
refuses "over itself" 2 "written over itself" convert "$work/original.pt" "$work/original.pt" --vocab "$vocab" --force
refuses "no optimizer" 2 "has no optimizer state" convert "$golden/original.pt" "$work/x.h5" --optimizer --vocab "$vocab"
refuses "optimizer in hf" 2 "no place for optimizer state" convert "$golden/training.pt" "$work/x" --optimizer
refuses "f16 checkpoint" 2 "holds f32" convert "$golden/original.pt" "$work/x.h5" --precision f16
refuses "heads" 2 "do not tell how many attention heads" convert "$golden/bare.pt" "$work/x.h5"
refuses "another architecture" 2 "it is another architecture" convert "$golden/original.pt" "$work/x.h5" --model "$small"
refuses "a tower alone" 1 "no tensor bert.embeddings.word_embeddings.weight" convert "$golden/clip.pt" "$work/x.h5" --model "$small"
refuses "one part" 2 "init_text" train "$work/p1" --init_image "$golden/clip.pt"
refuses "whole and part" 2 "init_image and init_text out" train "$work/p2" --init "$golden/original.pt" --init_text "$golden/bert"
refuses "not a weight file" 1 "no weight file that tuwen knows" convert "$vocab" "$work/x.h5"
refuses "no file" 1 "cannot open" convert "$work/nothing.pt" "$work/x.h5"
refuses "an empty folder" 1 "neither a run folder" convert "$data" "$work/x.h5"

finish
