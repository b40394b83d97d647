#!/usr/bin/env bash
# The weights that ship with the package, trained anew one after the other, for ten minutes of one GPU:
#
#     trainers/nano.sh DATA OUT [KEY=VALUE]...
#
# DATA is a folder, or a .tar file of one, with images, speech, video and proteins, laid out as `zoo train --data` takes
# them. OUT gets a run of each recipe; runs that were stopped go on when the same command is given again. MINUTES=10 is
# shared by the recipes. KEY=VALUE changes all of them: `steps=2` tries the script out where there is no GPU.
set -euo pipefail
data=$1 out=$2
shift 2
recipes=(
    images/wetok-nano images/one-d-piece-nano images/fqgan-nano video/cosmos-dv-nano proteins/dplm2-nano
    speech/wavtokenizer-nano speech/speechtokenizer-nano speech/mimi-nano
)
share=$(awk "BEGIN { print ${MINUTES:-10} / ${#recipes[@]} }")
mkdir -p "$out"
if [[ -f $data ]]; then
    mkdir -p "$out/data"
    tar -xf "$data" -C "$out/data" --skip-old-files
    data=$out/data
fi
for recipe in "${recipes[@]}"; do
    name=${recipe#*/}
    echo "== $name"
    zoo train "$name" --data "$data/${recipe%/*}" --out "$out/$name" --minutes "$share" "$@"
done
