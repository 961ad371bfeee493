#!/bin/sh
# tests/check_align.sh - facenetctl align on real photos: the right files of
# the right size, the same with any number of threads, nothing done or changed
# twice, several faces, what fails is named, bad arguments. The detector is the
# test data's: which faces it finds is known. Exit status 77: no test data.
set -eu

cd "$(dirname "$0")/.."
data=${FACENETD_DATA:-../shared/data}
ctl=$PWD/build/${V:-release}/facenetctl
embedder=$PWD/models/embedder.onnx
for need in "$data/photos/group3.jpg" "$data/faces/orl/s1/1.pgm" \
    "$data/faces/lfw-other-people" "$data/weights/mtcnn_onet.onnx" "$ctl"; do
    [ -e "$need" ] || {
        echo "SKIP check_align: no $need"
        exit 77
    }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/align.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
failed=0
models=$dir/models
mkdir "$models"
cp "$embedder" "$models"
for n in p r o; do
    "$ctl" model import "$data/weights/mtcnn_${n}net.onnx" --kind "mtcnn-${n}net" \
        --scale fixed:127.5,128 -o "$models/detector_${n}net.onnx" >/dev/null
done

fail() {
    echo "FAIL check_align: $*"
    failed=1
}

# run WANTED-STATUS ARGUMENT...: stdout and stderr to $dir/said
run() {
    want=$1
    shift
    status=0
    "$ctl" align "$@" >"$dir/said" 2>&1 || status=$?
    [ "$status" -eq "$want" ] || {
        fail "status $status, not $want, of: align $*"
        cat "$dir/said"
    }
}

said() {
    grep -q -- "$1" "$dir/said" || {
        fail "not said: $1"
        cat "$dir/said"
    }
}

files() {
    (cd "$1" && find . -type f | LC_ALL=C sort | tr '\n' ' ')
}

# Width and height of a PNG, from its head.
size() {
    od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }'
}

# Three photos of two people, in two folders.
mkdir -p "$dir/in/ann" "$dir/in/bob" "$dir/more/bob" "$dir/empty"
set -- "$data"/faces/lfw-other-people/A*/*_0001.jpg
cp "$1" "$dir/in/ann/1.jpg"
cp "$2" "$dir/in/bob/1.jpg"
cp "$3" "$dir/more/bob/1.jpg"
cp "$3" "$dir/in/loose.jpg"

run 0 "$dir/in:$dir/more" "$dir/out" --detectors "$models"
said "3 photos of 2 people: 3 aligned now (3 faces), 0 were there, 0 failed"
said "1 photos outside"
[ "$(files "$dir/out")" = "./ann/1.png ./bob/1.png ./bob/1~2.png " ] ||
    fail "wrong files: $(files "$dir/out")"
[ "$(size "$dir/out/ann/1.png")" = "182 182" ] || fail "size is not 182"

# Any number of threads; what is there is left alone, of either kind.
run 0 "$dir/in:$dir/more" "$dir/out1" --detectors "$models" --threads 1
run 0 "$dir/in:$dir/more" "$dir/out5" --detectors "$models" --threads 5
diff -r "$dir/out1" "$dir/out5" || fail "threads change the crops"
echo mine >"$dir/out/ann/1.png"
rm "$dir/out/bob/1.png"
run 0 "$dir/in:$dir/more" "$dir/out" --detectors "$models"
said "1 aligned now (1 faces), 2 were there"
[ "$(cat "$dir/out/ann/1.png")" = mine ] || fail "a file was overwritten"
cmp "$dir/out/bob/1.png" "$dir/out1/bob/1.png" || fail "not what it was"
run 0 "$dir/in:$dir/more" "$dir/out" --detectors "$models" --quality 90
said "0 aligned now (0 faces), 3 were there"

# Crops of either kind and size.
run 0 "$dir/in" "$dir/arc" --detectors "$models" --crop arcface-112
[ "$(size "$dir/arc/ann/1.png")" = "112 112" ] || fail "arcface is not 112"
run 0 "$dir/in" "$dir/arc96" --detectors "$models" --crop arcface-112 --size 96
[ "$(size "$dir/arc96/ann/1.png")" = "96 96" ] || fail "--size 96"
run 0 "$dir/in" "$dir/box" --detectors "$models" --image-size 160 --margin 32
[ "$(size "$dir/box/ann/1.png")" = "160 160" ] || fail "--image-size 160"
run 0 "$dir/in" "$dir/box2" --detectors "$models" --crop box-margin:32,160
cmp "$dir/box/ann/1.png" "$dir/box2/ann/1.png" || fail "--margin is not --crop"
run 0 "$dir/in" "$dir/jpeg" --detectors "$models" --quality 95
[ "$(files "$dir/jpeg")" = "./ann/1.jpg ./bob/1.jpg " ] || fail "no JPEGs"
run 0 "$dir/in" "$dir/model" --model "$models/embedder.onnx"
[ "$(size "$dir/model/ann/1.png")" = "112 112" ] || fail "not the model's size"
cmp "$dir/model/ann/1.png" "$dir/arc/ann/1.png" || fail "not the model's crop"
run 0 "$dir/in" "$dir/both" --model "$models/embedder.onnx" --crop arcface-112
cmp "$dir/both/ann/1.png" "$dir/arc/ann/1.png" || fail "--crop beside --model"

# Several faces, largest first; and grey PGM.
mkdir -p "$dir/group/all" "$dir/grey"
cp "$data/photos/group3.jpg" "$dir/group/all/g.jpg"
run 0 "$dir/group" "$dir/faces" --detectors "$models" --all-faces
said "1 aligned now (5 faces)"
[ "$(files "$dir/faces")" = "./all/g_0.png ./all/g_1.png ./all/g_2.png\
 ./all/g_3.png ./all/g_4.png " ] || fail "wrong: $(files "$dir/faces")"
run 0 "$dir/group" "$dir/faces" --detectors "$models" --all-faces
said "1 were there"
rm "$dir/faces/all/g_0.png" # as if it had been stopped
run 0 "$dir/group" "$dir/faces" --detectors "$models" --all-faces
said "1 aligned now (5 faces)"
cp -r "$data/faces/orl/s1" "$dir/grey/s1"
run 0 "$dir/grey" "$dir/grey-out" --detectors "$models"
said "10 aligned now"

# What fails is named, the rest goes on.
echo "no picture" >"$dir/in/ann/text.jpg"
: >"$dir/in/bob/nothing.png"
head -c 3000 "$dir/in/ann/1.jpg" >"$dir/in/bob/cut.jpg"
run 1 "$dir/in" "$dir/part" --detectors "$models" --failures "$dir/list"
said "5 photos of 2 people: 2 aligned now (2 faces), 0 were there, 3 failed"
[ "$(cut -f1 "$dir/list" | tr '\n' ' ')" = "$dir/in/ann/text.jpg \
$dir/in/bob/cut.jpg $dir/in/bob/nothing.png " ] || fail "list: $(cat "$dir/list")"
grep -q "nothing.png	this is empty" "$dir/list" || fail "no reason is given"
[ "$(files "$dir/part")" = "./ann/1.png ./bob/1.png " ] || fail "what is left"

# No room for a file: an error that names it, and nothing half written.
mkdir -p "$dir/full/ann"
status=0
(
    trap '' XFSZ
    ulimit -f 4
    exec "$ctl" align "$dir/in" "$dir/full" --detectors "$models"
) >"$dir/said" 2>&1 || status=$?
[ "$status" -eq 2 ] || fail "status $status where files cannot be written"
said "full/.*: File too large"
[ -z "$(files "$dir/full")" ] || fail "left: $(files "$dir/full")"

# What is refused, and leaves nothing behind.
run 2
run 2 "$dir/in"
run 2 "$dir/in" "$dir/none"
run 2 "$dir/in" "$dir/none" --detectors "$dir"
run 2 "$dir/empty" "$dir/none" --detectors "$models"
said "no photos"
run 2 "$dir/nowhere" "$dir/none" --detectors "$models"
said "no such folder"
run 2 "$dir/in" "$dir/in/aligned" --detectors "$models"
said "lies in"
run 2 "$dir/in" "$dir/in" --detectors "$models"
run 2 "$dir/in" "$dir/nowhere/out" --detectors "$models"
run 2 "$dir/in" "$dir/list" --detectors "$models"
for bad in "--crop none" "--crop round" "--size 15" "--size 1025" "--size x" \
    "--margin -1" "--margin 182" "--min-face 11" "--threads 0" "--threads 65" \
    "--quality 0" "--quality 101" "--png --quality 9" "--colour" \
    "--crop arcface-112 --margin 4" "--failures $dir/nowhere/list"; do
    # shellcheck disable=SC2086
    run 2 "$dir/in" "$dir/none" --detectors "$models" $bad
done
ln -s /etc "$dir/in/out"
run 2 "$dir/in" "$dir/none" --detectors "$models"
said "leads out"
[ ! -e "$dir/none" ] && [ ! -e "$dir/in/aligned" ] || fail "a folder was left"
[ -z "$(find "$dir" -name '.align-*')" ] || fail "an unfinished file was left"
run 0 --help
said "Exit status"

[ "$failed" -eq 0 ] && echo "OK check_align"
exit "$failed"
