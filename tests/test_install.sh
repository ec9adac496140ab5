#!/usr/bin/env bash
# libtuwen as other programs meet it: installed to a prefix, found by pkg-config and by find_package, shared and static,
# from C, C++ and Python. Argument: the build folder.
set -u
. tests/shell.sh "$1"
source=$PWD

same() { # NAME: the last output is the first example's
    if cmp -s "$work/out" "$work/expected"; then ok; else fail "$1"; fi
}
setting() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }

cc=$(setting CMAKE_C_COMPILER)
sanitizer=()
[ "$(setting TW_SANITIZE)" = ON ] && sanitizer=(-fsanitize=address,undefined)
[ "$(setting TW_TSAN)" = ON ] && sanitizer=(-fsanitize=thread)

holds "shapes" "$tuwen" shapes "$work/data" --train 40 --valid 4 --size 32
holds "prepare" "$tuwen" prepare --data_dir "$work/data" --splits train
holds "train" "$tuwen" train --model micro --train_data "$work/data/lmdb/train" --vocab "$work/data/vocab.txt" \
    --output "$work/run" --batch 20 --max_steps 2 --threads 1
model=$work/run/latest
image=$source/tests/golden/images/jpeg_420.jpg
texts=(红色的圆形 蓝色的方块 一只白色的猫)

# ---- installed, and moved: nothing in it may name the place it was made for ----
holds "install" cmake --install "$build" --component library --prefix "$work/first"
mv "$work/first" "$work/prefix"
pc=$(find "$work/prefix" -name tuwen.pc)
lib=$(dirname "$(find "$work/prefix" -name libtuwen.so)")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
PKG_CONFIG_PATH=$(dirname "$pc")
LD_LIBRARY_PATH=$lib
if grep -rqsI "$work" "$work/prefix"; then fail "the installed files name $work"; else ok; fi

# ---- only what tuwen.h declares is to be seen ----
nm -D --defined-only "$lib/libtuwen.so" | sed -n 's/.* T \([a-z0-9_]*\).*/\1/p' | grep -v '^_\(init\|fini\)$' | sort >"$work/seen"
grep -o 'tuwen_[a-z_]*(' "$source/include/tuwen.h" | tr -d '(' | sort -u >"$work/declared"
holds "the symbols are those of tuwen.h" diff "$work/declared" "$work/seen"
readelf -d "$lib/libtuwen.so" >"$work/out"
if grep -q 'SONAME.*\[libtuwen\.so\.0\]' "$work/out"; then ok; else fail "the SONAME"; fi

# ---- pkg-config ----
flags=(-std=c17 -Wall -Wextra -Werror "${sanitizer[@]}")
holds "compiled by pkg-config" "$cc" "${flags[@]}" "$source/examples/similarity.c" \
    $(pkg-config --cflags --libs tuwen) -o "$work/shared"
holds "the example" "$work/shared" "$model" "$image" "${texts[@]}"
cp "$work/out" "$work/expected"
awk '{ sum += $1 } END { exit !(NR == 3 && sum > 99.97 && sum < 100.03) }' "$work/expected" && ok || fail "no three chances of together 100 %"
static=$(pkg-config --static --libs tuwen | sed "s|-ltuwen |-l:libtuwen.a |")
holds "compiled static" "$cc" "${flags[@]}" "$source/examples/similarity.c" $(pkg-config --cflags tuwen) $static -o "$work/static"
holds "the static example" env -u LD_LIBRARY_PATH "$work/static" "$model" "$image" "${texts[@]}"
same "says the same"
if "$work/shared" "$work/none.h5" "$image" a b >"$work/out" 2>"$work/err"; then fail "no checkpoint, no error"
elif grep -q "similarity: .*none.h5" "$work/err"; then ok; else fail "the example's error"; fi

# ---- the same as the command, and as the READMEs show it ----
holds "tuwen similarity" "$tuwen" similarity --checkpoint "$model" "$image" "${texts[@]}"
sed -i 1d "$work/out" # the image's name
if diff -w "$work/out" "$work/expected" >/dev/null; then ok; else fail "the command and the example differ"; fi
for readme in README.md README.zh-CN.md; do
    sed -n '/^```c$/,/^```$/p' "$readme" | sed '1d;$d' >"$work/readme.c"
    holds "$readme has the example" diff "$work/readme.c" examples/similarity.c
done
if [ "$(wc -l <examples/similarity.c)" -le 60 ]; then ok; else fail "the example has more than 60 lines"; fi

# ---- C++ and a plain C89-style include ----
cxx=$(command -v g++ || command -v clang++ || true)
if [ -n "$cxx" ]; then
    printf '#include <tuwen.h>\nint main() { return tuwen_version()[0] == 0; }\n' >"$work/a.cpp"
    holds "C++" "$cxx" -Wall -Wextra -Wpedantic -Werror "${sanitizer[@]}" "$work/a.cpp" $(pkg-config --cflags --libs tuwen) -o "$work/cxx"
    holds "C++ runs" "$work/cxx"
else
    echo "SKIP C++: no compiler"
fi

# ---- find_package ----
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(example C)
find_package(tuwen 0.1 REQUIRED)
add_executable(shared ${EXAMPLE})
target_link_libraries(shared PRIVATE tuwen::tuwen)
add_executable(static ${EXAMPLE})
target_link_libraries(static PRIVATE tuwen::static)
CMAKE
holds "find_package" cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$work/prefix" \
    -DEXAMPLE="$source/examples/similarity.c" -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS="${sanitizer[*]}"
holds "built with it" cmake --build "$work/project/build"
for kind in shared static; do
    holds "$kind, by find_package" "$work/project/build/$kind" "$model" "$image" "${texts[@]}"
    same "$kind says the same"
done

# ---- Python ----
if [ ${#sanitizer[@]} -ne 0 ]; then
    echo "SKIP similarity.py: a library with a sanitizer does not load into Python"
elif command -v python3 >/dev/null; then
    holds "similarity.py" python3 "$source/examples/similarity.py" "$model" "$image" "${texts[@]}"
    same "similarity.py says the same"
else
    echo "SKIP similarity.py: no python3"
fi

finish
