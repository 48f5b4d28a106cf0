#!/bin/sh
# Conformance and benchmarks on a real GPU, in under ten minutes: the cases of every op against the CPU, then the rows of
# tests/gpu/benches.txt, and the same rows in PyTorch where it has CUDA. Writes tests/results/DEVICE.json.
#
#   sh tests/gpu.sh [--device vulkan:N] [--small] [--out FOLDER] [--seconds N]
#   sh tests/gpu.sh --pack FILE.tar.gz
#
# --device  another one than the first GPU; a software driver is taken only where it is asked for
# --small   sizes for software drivers (tests/gpu/small.txt)
# --out     another folder than tests/results
# --seconds the time for all of it (default 570): rows that it does not suffice for are left out, which the file says
# --pack    makes an archive of the project for machines that have cc, CMake and a Vulkan driver, and neither glslc nor
#           headers nor a network: with the shaders compiled (in the driver lab's root where there is one: its glslc
#           knows more variants than Debian 12's), headers, and libraries (so it is for this kind of processor).
#           There, unpack it and run tests/gpu.sh.
set -eu
here=$PWD
cd "$(dirname "$0")/.."
if command -v ninja >/dev/null; then export CMAKE_GENERATOR=Ninja; fi

device='' rows=tests/gpu/benches.txt out=tests/results pack='' seconds=570
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --small) rows=tests/gpu/small.txt; shift ;;
        --out) out=$(cd "$here" && realpath -m "$2"); shift 2 ;;
        --seconds)
            case $2 in '' | *[!0-9]*) echo "--seconds: a whole number, not $2" >&2; exit 2 ;; esac
            seconds=$2
            shift 2 ;;
        --pack) pack=$(cd "$here" && realpath -m "$2"); shift 2 ;;
        *) sed -n '2,18s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
build=${HEKLA_GPU_BUILD:-$PWD/build-gpu}

# ---- Packing ----

# The driver lab's glslc and headers know more of Vulkan than those of an older system. Libraries are the machine's own, since
# those of an older system run on more machines; but Debian 12's shaderc cannot be opened, so where there is the lab's, it is
# taken (it needs glibc 2.38; without it elementwise ops are not fused).
compile_shaders() {
    . cmake/packages.sh
    . tests/lab/root.sh
    # shellcheck disable=SC2034 # root.sh reads it
    lab_build=$build
    rm -rf "$build"
    if [ -d "$lab_root" ] && [ "$(id -u)" = 0 ]; then
        headers=$lab_root/usr/include
        shaderc=$(find "$lab_root/usr/lib" -name libshaderc.so.1 | head -n 1)
        inside cmake -G Ninja -S /hekla -B /build "$@" >&2
        inside cmake --build /build --target hekla_spirv -j "$(nproc)" >&2
    else
        headers=/usr/include
        shaderc=$(find /usr/lib -name libshaderc.so.1 | head -n 1)
        cmake -S . -B "$build" "$@" >&2
        cmake --build "$build" --target hekla_spirv -j "$(nproc)" >&2
    fi
}

# What the build would look for in the system, to folder $1.
pack_dependencies() {
    mkdir -p "$1/include" "$1/lib" "$1/loader"
    for header in "$headers"/vulkan "$headers"/vk_video "$headers"/volk.h "$headers"/volk.c /usr/include/cjson \
        /usr/include/shaderc; do
        cp -r "$header" "$1/include/"
    done
    rm -f "$1"/include/vulkan/*.hpp # half of it all
    for library in libcjson.so libcjson.so.1; do
        cp -L "$(find /usr/lib -name "$library" | head -n 1)" "$1/lib/"
    done
    cp -L "$shaderc" "$1/lib/"
    cp -L "$(find /usr/lib -name libvulkan.so.1 | head -n 1)" "$1/loader/"
}

if [ -n "$pack" ]; then
    build=$build/pack # which may be another system's: not what is built here
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    mkdir "$folder/hekla"
    compile_shaders -DCMAKE_BUILD_TYPE=Release -DHEKLA_TESTS=OFF -DHEKLA_EXAMPLES=OFF
    pack_dependencies "$folder/hekla/deps"
    cp -r CMakeLists.txt CMakePresets.json LICENSE README.md cmake examples include shaders src tests "$folder/hekla/"
    cp -r "$build/spirv" "$folder/hekla/spirv"
    git rev-parse HEAD >"$folder/hekla/COMMIT" 2>/dev/null || rm -f "$folder/hekla/COMMIT"
    tar -C "$folder" -czf "$pack" hekla
    echo "$pack: $(wc -c <"$pack") bytes, $(find "$build/spirv" -name '*.inc' | wc -l) shaders"
    exit
fi

# ---- Building ----

begin=$(date +%s)
left() { echo $((seconds - $(date +%s) + begin)); }

echo "== Build"
set -- -DCMAKE_BUILD_TYPE=Release -DHEKLA_TESTS=OFF -DHEKLA_EXAMPLES=OFF -DHEKLA_INSTALL=OFF -DHEKLA_GPU_CHECK=ON
if [ -d spirv ]; then set -- "$@" -DHEKLA_SPIRV="$PWD/spirv"; fi
if [ -d deps ]; then
    set -- "$@" -DCMAKE_PREFIX_PATH="$PWD/deps"
    libraries=$PWD/deps/lib # shaderc is opened at run time, and so is Vulkan's loader: the machine's own where it has one
    ldconfig -p 2>/dev/null | grep -q libvulkan.so.1 || libraries=$libraries:$PWD/deps/loader
    export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries"
fi
mkdir -p "$build" "$out"
if ! {
    cmake -S . -B "$build" "$@" &&
        cmake --build "$build" --target hekla_program hekla_gpu_check -j "$(nproc)"
} >"$build/log.txt" 2>&1; then
    tail -n 30 "$build/log.txt" >&2
    exit 1
fi
hekla=$build/hekla

# ---- The device ----

# One line of JSON for each.
devices() { "$hekla" devices --json 2>/dev/null | sed -e 's/^\[//' -e 's/\]$//' -e 's/},{/}\n{/g'; }
text_of() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

if [ -n "$device" ]; then description=$(devices | grep "\"device\":\"$device\"" || true)
else description=$(devices | grep '"device":"vulkan' | grep '"software":false' | head -n 1 || true); fi
if [ -z "$description" ]; then
    echo "No GPU: there is ${device:+no $device, but }$(devices | sed 's/.*"device":"\([^"]*\)","name":"\([^"]*\)".*/\1 (\2)/' | paste -sd ,)." >&2
    exit 77
fi
device=$(echo "$description" | text_of device)
name=$(echo "$description" | text_of name)
echo "== $name, $(echo "$description" | text_of driver)"

# ---- Conformance ----

# An op each, several at once: most of the time a driver compiles.
echo "== Conformance: the cases of every op, against the CPU"
rm -rf "$build/check"
mkdir "$build/check"
status=0
sed -n 's/^HK_OP(\(.*\))$/\1/p' src/op/ops.def | HEKLA_TEST_DEVICES=$device xargs -P "$(nproc)" -I {} \
    sh -c 'timeout "$2" "$1/tests/gpu/hekla_gpu_check" "$0" >"$1/check/$0" 2>&1 || { echo "failed: $0, status $?" >>"$1/check/$0"; exit 1; }
    ' {} "$build" $((seconds / 2)) || status=$?
summary=$(sed -n 's/^\([0-9]*\) cases.* \([0-9]*\) failures.*/\1 \2/p' "$build"/check/* |
    awk '{ cases += $1; failures += $2 } END { printf "\"cases\": %d, \"failures\": %d, ", cases, failures }')
echo "$summary\"status\": $status"
grep -h -i failed "$build"/check/* | head -n 30 >&2 || true

# ---- Benchmarks ----

json_text() { printf '"%s"' "$(printf %s "$1" | tr -d '\n\r\t' | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g')"; }

# The row, and what hekla printed of it, or why it printed nothing.
measure() {
    if [ "$(left)" -lt "$reserved" ]; then
        echo "{\"row\": $(json_text "$1"), \"left_out\": \"no time was left\"}"
        return
    fi
    most=$(left)
    # shellcheck disable=SC2086 # arguments
    if timeout $((most < 60 ? most : 60)) "$hekla" bench $1 --device "$device" >"$build/line.json" 2>"$build/line.txt"; then failed=
    else failed="\"failed\": $(json_text "status $?: $(tail -n 1 "$build/line.txt")"), "; fi
    echo "{\"row\": $(json_text "$1"), ${failed}\"result\": $(grep . "$build/line.json" || echo null)}"
}

reserved=15
has_torch() { python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; }
if has_torch; then reserved=$((seconds * 2 / 5 + 15)); fi # two fifths are PyTorch's

echo "== Benchmarks"
: >"$build/hekla.jsonl"
: >"$build/torch.jsonl"
grep -v '^#' "$rows" | while read -r row; do
    measure "$row" | tee -a "$build/hekla.jsonl"
done
if has_torch; then
    echo "== The same in PyTorch"
    python3 tests/bench/torch_cuda.py "$rows" --deadline "$(left)" | tee "$build/torch.jsonl" || true
else
    echo "== No PyTorch with CUDA here"
fi

# ---- The file ----

lines() { sed -e 's/^/    /' -e '$!s/$/,/' "$1"; }
nvidia=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 || true)
file=$out/$(echo "$name" | tr -cs 'A-Za-z0-9.\n' '-' | sed 's/-*$//').json
cat >"$file" <<EOF
{
  "date": "$(date -u +%Y-%m-%d)",
  "version": $(json_text "$("$hekla" --version)"),
  "commit": $(json_text "$(cat COMMIT 2>/dev/null || git rev-parse HEAD 2>/dev/null || true)"),
  "rows": "$rows",
  "system": $(json_text "$(uname -sm)"),
  "processor": $(json_text "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads"),
  "nvidia_driver": $(json_text "$nvidia"),
  "device": $description,
  "conformance": {$summary"status": $status},
  "hekla": [
$(lines "$build/hekla.jsonl")
  ],
  "pytorch": [
$(lines "$build/torch.jsonl")
  ],
  "seconds": $(($(date +%s) - begin))
}
EOF
failed=$(grep -c '"failed"' "$build/hekla.jsonl" || true)
echo "== $file: $failed of $(grep -c . "$build/hekla.jsonl") rows failed, conformance status $status, $(($(date +%s) - begin)) s"
measured=$(grep -c '"result": {' "$build/hekla.jsonl" || true)
[ "$measured" -gt 0 ] || echo "No row was measured: there was no time" >&2
[ "$failed" = 0 ] && [ "$status" = 0 ] && [ "$measured" -gt 0 ] && case $summary in '"cases": 0,'*) false ;; esac
