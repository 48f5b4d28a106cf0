#!/bin/sh
# Builds Hekla, trains a small Llama on English text for about three minutes on the best device it finds, and lets it write.
#
#   sh examples/quickstart.sh [--data FILE] [--minutes M] [--device auto|cpu|vulkan[:N|:NAME]]
#
# The text is FILE, or the King James Bible from Debian's package bible-kjv. The model stays in build/quickstart/run.
set -eu
cd "$(dirname "$0")/.."
. cmake/packages.sh

data= minutes=3 device=auto
while [ $# -gt 0 ]; do
    case $1 in
        --data) data=${2:?--data needs a file} && shift 2 ;;
        --minutes) minutes=${2:?--minutes needs a number} && shift 2 ;;
        --device) device=${2:?--device needs a name} && shift 2 ;;
        --help) sed -n '2,6s/^# \{0,1\}//p' examples/quickstart.sh && exit 0 ;;
        *) echo "quickstart.sh: unknown option $1; see --help" >&2 && exit 2 ;;
    esac
done

packages=$build_packages
[ -n "$data" ] || packages="$packages bible-kjv"
[ ! -e /dev/dri ] || packages="$packages mesa-vulkan-drivers" # a GPU that Mesa may drive
# shellcheck disable=SC2086 # a list of names
install_packages $packages

cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DHEKLA_TESTS=OFF >build.log 2>&1 || { cat build.log; exit 1; }
mv build.log build/
cmake --build build

work=build/quickstart
mkdir -p "$work"
if [ -z "$data" ]; then
    data=$work/bible.txt
    # the reader is in /usr/games or /usr/bin
    [ -s "$data" ] || PATH=$PATH:/usr/games bible -f gen1:1-rev22:21 >"$data"
fi
rm -rf "$work/run"
precision=f32
if [ "$device" = cpu ] || [ ! -e /dev/dri ]; then
    ! grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo || precision=bf16 # a third more steps
fi
build/hekla train --data "$data" --out "$work/run" --minutes "$minutes" --device "$device" \
    --model llama --layers 6 --heads 4 --width 64 --context 256 --batch 8 --lr 4e-3 --schedule linear \
    --precision "$precision"
echo
echo "It writes:"
echo
build/hekla generate "$work/run" --tokens 600 --temperature 0.7 --device cpu
echo
echo "More of it: build/hekla generate $work/run --prompt 'In the beginning' --temperature 0.7"
