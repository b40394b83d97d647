#!/usr/bin/env bash
# The weights that ship with the package, trained anew one after the other, for ten minutes of one GPU:
#
#     trainers/nano.sh DATA OUT [KEY=VALUE]...
#
# DATA is a folder, or a .tar file of one, with images, speech, video and proteins, laid out as `zoo train --data` takes
# them. OUT gets a run of each recipe; runs that were stopped go on when the same command is given again. MINUTES=9 is
# shared by the recipes. KEY=VALUE changes all of them: `steps=2` tries the script out where there is no GPU,
# with START_SECONDS=2 in place of the 60 of one processor that wetok-nano's start takes.
set -euo pipefail
data=$1 out=$2
shift 2
recipes=(
    images/wetok-nano images/one-d-piece-nano images/fqgan-nano video/cosmos-dv-nano proteins/dplm2-nano
    speech/wavtokenizer-nano speech/speechtokenizer-nano speech/mimi-nano
)
share=$(awk "BEGIN { print ${MINUTES:-9} / ${#recipes[@]} }")
mkdir -p "$out"
if [[ -f $data ]]; then
    mkdir -p "$out/data"
    tar -xf "$data" -C "$out/data" --skip-old-files
    data=$out/data
fi
for recipe in "${recipes[@]}"; do
    name=${recipe#*/}
    echo "== $name"
    options=()
    if [[ $name == wetok-nano ]]; then # starts as a transform, and the decoder is trained
        [[ -f $out/start.safetensors ]] ||
            python -m zoo.trainers.transform_code "$name" --data "$data/images" --out "$out/start.safetensors" \
                --seconds "${START_SECONDS:-60}"
        options=(
            weights="$out/start.safetensors" "freeze=[encoder, quantizer]" "losses={psnr: 0.02, ssim: 0.5}"
            optimizer.learning_rate=1e-3 batch_size=8 steps=10000
        )
    fi
    zoo train "$name" "${options[@]}" --data "$data/${recipe%/*}" --out "$out/$name" --minutes "$share" "$@"
done
