#!/usr/bin/env bash
# Training from two towers, whatever files they come in: all hold the same two (scripts/make_golden_parts.py), so all
# runs must be the same to the bit. Argument: the build folder.
set -u
. tests/shell.sh "$1"
set -f
convert=tests/golden/convert
parts=tests/golden/parts
vocab=$convert/vocab.txt
data=$work/data

says() { # NAME TEXT: the last command's output contains it
    if cat "$work/out" "$work/err" | grep -qF -- "$2"; then ok; else fail "$1: no '$2' in the output"; fi
}
train() { # NAME IMAGE TEXT OPTIONS
    local out=$work/$1 image=$2 text=$3
    shift 3
    "$tuwen" train --train_data "$data/lmdb/train" --vocab "$vocab" --output "$out" --batch 8 --max_steps 2 --warmup 1 \
        --lr 1e-3 --threads 1 --report false --init_image "$image" --init_text "$text" "$@"
}
# same NAME RUN OTHER: the two runs' checkpoints have the same bits
same() {
    local a b
    a=$("$build/tests/tool_checkpoint_hash" "$work/$2/latest" 2>&1) && b=$("$build/tests/tool_checkpoint_hash" "$work/$3/latest" 2>&1)
    if [ -n "$a" ] && [ "${a#* }" = "${b#* }" ]; then ok; else fail "$1: $a and $b"; fi
}
# weights RUN NAMES: names, types and hashes of a run's tensors
weights() {
    "$tuwen" convert "$work/$1" "$work/$1.pt" --force >"$work/out" 2>"$work/err" &&
        "$build/tests/tool_weights_list" "$work/$1.pt" | sed 's/^module\.//' | grep -E "$2" | sort
}

holds "shapes" "$tuwen" shapes "$data" --train 16 --valid 8 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$data" --splits train,valid

# The same run from every kind of file.
described="--model $convert/small.yaml"
holds "a state dict" train one "$convert/clip.pt" "$convert/bert" $described
holds "OpenAI's archive" train openai "$parts/openai.pt" "$convert/bert" $described
says "the archive is named" "image tower from $parts/openai.pt"
says "its temperature" "logit_scale from $parts/openai.pt: "
same "OpenAI's archive" one openai
holds "CLIPModel, sizes from config.json" train clip "$parts/clip" "$convert/bert" --context_length 12
same "CLIPModel" one clip
holds "ChineseCLIPTextModel" train text "$convert/clip.pt" "$parts/chinese-text" $described
same "ChineseCLIPTextModel" one text
# These have no temperature, which then is the original's first one.
holds "CLIPVisionModelWithProjection" train projected "$parts/vision-projected" "$convert/bert" --context_length 12
says "nothing random but the text's projection" "image tower from $parts/vision-projected"
if grep -q "starts random" "$work/err"; then fail "a projection that is there is used"; else ok; fi

# Towers without a projection: all the same, and but for it the same as the one with.
for kind in vision vision-old chinese-vision; do
    holds "$kind" train $kind "$parts/$kind" "$convert/bert" --context_length 12
    says "$kind: the projection is missed" "$parts/$kind has no projection to the space of the features: it starts random"
    same "$kind" vision $kind
done
frozen="--freeze visual.*,bert.* --context_length 12"
holds "vision, frozen" train still "$parts/vision" "$convert/bert" $frozen
holds "clip, frozen" train still-clip "$parts/clip" "$convert/bert" $frozen
tower='^(visual|bert)\.'
a=$(weights still "$tower" | grep -v '^visual\.proj ') b=$(weights still-clip "$tower" | grep -v '^visual\.proj ')
if [ -n "$a" ] && [ "$a" = "$b" ]; then ok; else fail "the tower is loaded whole"; fi
a=$(weights still '^visual\.proj ') b=$(weights still-clip '^visual\.proj ')
if [ -n "$a" ] && [ "$a" != "$b" ]; then ok; else fail "its projection is another one"; fi

# A whole model gives either tower; a ResNet too.
holds "both towers of one folder" train whole "$convert/hf" "$convert/hf"
says "both are read" "text tower from $convert/hf"
resnet="--model $convert/resnet.yaml"
holds "a ResNet" train resnet "$convert/resnet.pt" "$convert/bert" $resnet
holds "OpenAI's ResNet" train openai-resnet "$parts/openai-resnet.pt" "$convert/bert" $resnet
same "OpenAI's ResNet, statistics too" resnet openai-resnet

# info says what a part is.
for part in openai.pt clip vision; do
    holds "info of $part" "$tuwen" info "$parts/$part"
    says "info of $part: no text tower" "not_a_whole_model:"
done
holds "info of an archive" "$tuwen" info "$parts/openai-resnet.pt"
says "info: its kind" "TorchScript archive"
says "info: its tower" "ResNet, width 4, 64 px"

# What is none.
refuses "a CLIP as text tower" 1 "no tensor bert.embeddings.word_embeddings.weight" \
    train no1 "$parts/clip" "$parts/clip" --context_length 12
refuses "a BERT as image tower" 1 "no tensor visual.conv1.weight" train no2 "$convert/bert" "$convert/bert"
mkdir "$work/roberta"
cp "$convert/bert/pytorch_model.bin" "$work/roberta"
sed 's/"model_type": "bert"/"model_type": "roberta"/' "$convert/bert/config.json" >"$work/roberta/config.json"
refuses "another kind of model" 1 "model_type 'roberta' is none of" train no3 "$convert/clip.pt" "$work/roberta" $described

finish
