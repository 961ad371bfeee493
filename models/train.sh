#!/bin/sh
# Trains the models of this folder anew, into build/trained: what
# models/README.md says they were made from, by which commands.
#   make train-models            both: three to five hours on two cores
#   models/train.sh detector|embedder|measure
# FACENETD_DATA (../shared/data): faces/, weights/ of the teachers.
# EXTRA: a folder that has, as models/README.md describes them, the photos of
# extra_embedder and extra_detector below and backgrounds/ (photos without
# people), each SET/ANY/photo.jpg; without, the test data's are all there is.
# DEVICE: as --device of facenetctl train; the published ones learned on cpu.
set -eu
cd "$(dirname "$0")/.."
DATA=${FACENETD_DATA:-../shared/data}
EXTRA=${EXTRA:-}
DEVICE=${DEVICE:-cpu}
OUT=${OUT:-build/trained}
CTL=build/facenetctl
FACES=$DATA/faces
PHOTOS=$FACES/cfp-train:$FACES/lfw-other-people:$FACES/bollywood-64:$FACES/celebs-7
extra_embedder='all-age-faces-adults fairface webmorph'
extra_detector='us-congress fairface interfaces webmorph generated-4k stylegan tpdne'

test -d "$FACES/cfp-train" || {
    echo "train.sh: no $FACES/cfp-train: set FACENETD_DATA" >&2
    exit 1
}
mkdir -p "$OUT/teacher"
for n in p r o; do
    $CTL model import "$DATA/weights/mtcnn_${n}net.onnx" --kind "mtcnn-${n}net" \
        --scale fixed:127.5,128 -o "$OUT/teacher/detector_${n}net.onnx"
done
$CTL model import "$DATA/weights/mobilefacenet_foamliu_112.onnx" --crop arcface-112 \
    --scale fixed:123.675,116.28,103.53,58.395,57.12,57.375 \
    -o "$OUT/teacher/embedder.onnx"

with_extra() {
    list=$PHOTOS
    for d; do
        test -z "$EXTRA" || list=$list:$EXTRA/$d
    done
    echo "$list"
}

# The cascade in its order: each network meets what those before it let through.
detector() {
    common="--teacher $OUT/teacher --out $OUT --device $DEVICE --threads 1"
    $CTL train-detector $common --stage p --batches 3000,1,1 --rate 0.002 \
        --data-dir "$PHOTOS"
    test -z "$EXTRA" || common="$common --backgrounds $EXTRA/backgrounds"
    $CTL train-detector $common --stage r --batches 1,4000,1 \
        --data-dir "$PHOTOS"
    $CTL train-detector $common --stage o --batches 1,1,8000 \
        --data-dir "$(with_extra $extra_detector)"
}

# One pass of imitation: the teacher's vector and seven pictures inside it, of
# every photo as it is disturbed. The rate falls by epochs of 250 batches.
embedder() {
    printf '%s\n' '0: 0.015' '6: 0.01' '12: 0.006' '19: 0.003' '22: 0.0015' \
        '25: 0.0006' >"$OUT/rate.txt"
    t=/features/features
    hints=down3.narrow.bn=$t.0/conv/conv.2/Conv
    hints=$hints,block3.1.add=$t.4/Add
    hints=$hints,down4.narrow.bn=$t.5/conv/conv.2/Conv
    hints=$hints,block4.1.add=$t.9/Add
    hints=$hints,block4.2.add=$t.11/Add
    hints=$hints,down5.narrow.bn=$t.12/conv/conv.2/Conv
    hints=$hints,block5.0.add=$t.14/Add
    $CTL train --arch mobilefacenet_slim --crop arcface-112 \
        --scale fixed:127.5,128 --distill "$OUT/teacher/embedder.onnx" \
        --distill-hints "$hints" --detectors "$OUT/teacher" \
        --data-dir "$(with_extra $extra_embedder)" --aligned no --batch-size 24 --epoch-size 250 \
        --max-nrof-epochs 27 --optimizer ADAM --adam-epsilon 1e-8 \
        --learning-rate -1 --learning-rate-schedule-file "$OUT/rate.txt" \
        --moving-average-decay 0.998 --memory-mib 4096 --threads 1 --device "$DEVICE" \
        --augment flip,jitter=0.04,rotate=8,light=0.2,grey=0.05,blur=0.1,jpeg=0.1,shrink=0.15 \
        --holdout 0 --holdout-dir "$FACES/orl" --evaluate-minutes 15 \
        --logs-base-dir "$OUT/logs" --models-base-dir "$OUT/runs" \
        --output "$OUT/embedder.onnx"
    # Thresholds by all pairs of LFW, through the detector that is served.
    $CTL calibrate --model "$OUT/embedder.onnx" --photos "$FACES/lfw" \
        --far 0.1,0.01,0.001,0.0001,0.00001,0.000001 --detectors "$OUT" --write
}

measure() {
    bench/figures_detector.py "$OUT"
    bench/figures_models.py --models "$OUT"
}

[ $# -gt 0 ] || set -- detector embedder measure
for part; do
    $part
done
