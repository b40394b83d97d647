#!/usr/bin/env bash
# Everything about zoo that needs a GPU, on one of them, in at most eight minutes:
#
#     benchmarks/gpu.sh [--device cpu] [--minutes 8]
#
# Writes gpu.json and gpu.md into $OUT, by default benchmarks/results. Nothing is fetched: the networks have random
# weights or those that ship. `--device cpu --minutes 2` tries the script out where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/results}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" benchmarks/gpu.py --json "$out/gpu.json" --markdown "$out/gpu.md" "$@"
