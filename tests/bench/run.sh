#!/bin/sh
# One table of how fast Hekla is on this machine: its figure, those of others on the same work, the machine's limit, ratios.
#
#   sh tests/bench/run.sh [--peers] [PART...]      parts: matmul steps generate vulkan start; all where none is named
#
# --peers has PyTorch, ggml and OpenBLAS measured beside it (peers.sh makes a root of 3 GB for them once, as root); without
# it they are where their figures would be "-". Everything of a part is measured in one sitting: only ratios mean something
# on a machine that others use, too. Ratios are over 1 where Hekla is faster. "x AVX-512": against the peer with OpenBLAS's
# AVX-512 kernels forced, which it does not choose by itself on every processor.
set -eu
cd "$(dirname "$0")/../.."
. cmake/packages.sh

peers=
[ "${1-}" != --peers ] || { peers=yes; shift; }
parts=${*:-matmul steps generate vulkan start}
# shellcheck disable=SC2086 # a list of names
install_packages $build_packages mesa-vulkan-drivers
# lavapipe's rows are lavapipe's, also where there is a GPU
for icd in /usr/share/vulkan/icd.d/lvp_icd*.json; do lavapipe=$icd; done
cmake --preset release -G Ninja >/dev/null
cmake --build --preset release --target hekla_program libhekla.so >/dev/null
hekla=build/hekla
found=$PWD/build/bench
mkdir -p "$found"
cc -std=gnu11 -O3 -march=native tests/bench/limits.c -o "$found/limits" -pthread

# ---- Measuring ----

peer() { [ -z "$peers" ] || sh tests/bench/peers.sh "$@" || echo "The peer failed: $*" >&2; }
# The others' root where there is one: it has the newest lavapipe, and ggml runs on the same.
on_vulkan() {
    if [ -n "$peers" ]; then
        sh tests/bench/peers.sh shell env VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json XDG_CACHE_HOME=/build/cache \
            "/hekla/$hekla" "$@" --device vulkan
    else
        VK_ICD_FILENAMES=$lavapipe VK_DRIVER_FILES=$lavapipe "$hekla" "$@" --device vulkan
    fi 2>/dev/null
}
on_cpu() { "$hekla" "$@" --device cpu 2>/dev/null; }

# number KEY PART...: of the JSON line on stdin that has all the parts; "-" where there is none
number() {
    key=$1
    shift
    lines=$(cat)
    for part in "$@"; do lines=$(printf '%s\n' "$lines" | grep -F -e "$part" || true); done
    value=$(printf '%s\n' "$lines" | sed -n "s/.*\"$key\": *\([-0-9.e+]*\).*/\1/p" | head -n 1)
    echo "${value:--}"
}

# row NAME UNIT ours packaged avx512 ggml limit: times (ms, bytes) are the better the less, rates the more
row() {
    printf '%s\n' "$*" | awk -v name="$1" -v unit="$2" '
        function ratio(other) { return other + 0 && ours + 0 ? sprintf("%.2f", unit ~ /^(ms|MB)/ ? other / ours : ours / other) : "-" }
        function text(x) { return x + 0 ? sprintf(x >= 100 ? "%.0f" : x >= 10 ? "%.1f" : "%.2f", x) : "-" }
        { n = NF; limit = $n; ggml = $(n - 1); avx512 = $(n - 2); packaged = $(n - 3); ours = $(n - 4)
          printf "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name, unit, text(ours), text(packaged),
              text(avx512), text(ggml), text(limit), ratio(packaged), ratio(avx512), ratio(ggml), ratio(limit) }' |
        tee -a "$found/table.md" >&2
}

# ---- The parts ----

shapes="512x512x512 1024x1024x1024 2048x2048x2048 4096x1152x384 4096x384x1536 256x2304x768 256x768x3072 256x50257x768"

part_matmul() {
    peer blas >"$found/blas.jsonl"
    HEKLA_PEERS_AVX512=1 peer blas >"$found/blas512.jsonl"
    for shape in $shapes; do
        for transpose in nn nt tn; do
            ours=$(on_cpu bench op --op matmul --shape "$shape" --transpose "$transpose" --seconds 0.5 | number gflops "")
            row "matmul $shape $transpose, f32" GFLOP/s "$ours" \
                "$(number gflops "\"$shape\"" "\"$transpose\"" <"$found/blas.jsonl")" \
                "$(number gflops "\"$shape\"" "\"$transpose\"" <"$found/blas512.jsonl")" - "$f32"
        done
    done
    for dtype in bf16 f16; do # f16 is widened, and multiplied in f32
        row "matmul 2048x2048x2048 nn, $dtype" GFLOP/s \
            "$(on_cpu bench op --op matmul --shape 2048x2048x2048 --dtype $dtype | number gflops "")" - - - \
            "$(limit_of $dtype)"
    done
}

limit_of() { # DTYPE of a product: what the processor's fastest instructions for it reach
    [ "$1" = bf16 ] || { echo "$f32"; return; }
    printf '%s\n' "$f32" "$bf16" "$tiles" | awk '$1 + 0 > most { most = $1 } END { print most }'
}

torch_steps() {
    peer torch --dtypes f32 --steps 5
    peer torch --dtypes bf16 --steps 5 --models gpt2-124m
}

part_steps() {
    torch_steps >"$found/torch.jsonl"
    HEKLA_PEERS_AVX512=1 torch_steps >"$found/torch512.jsonl"
    for model in gpt-tiny gpt-char gpt2-124m llama-2 llama-12; do
        ggml=-
        case $model in llama-*) ggml=$(peer ggml cpu $model | number ms_per_step "") ;; esac
        on_cpu bench step --model $model --steps 7 >"$found/step.json" || continue
        row "step of $model, f32" ms "$(number ms_per_step "" <"$found/step.json")" \
            "$(number ms_per_step "\"$model\"" '"f32"' <"$found/torch.jsonl")" \
            "$(number ms_per_step "\"$model\"" '"f32"' <"$found/torch512.jsonl")" "$ggml" -
        [ $model = gpt-char ] || continue
        # each model in a process of its own, so that what is held at most is this one's
        bytes=$(peer torch --models $model --dtypes f32 --steps 3 | number peak_bytes "")
        row "memory of a step of $model, f32" MB "$(megabytes "$(number peak_bytes "" <"$found/step.json")")" \
            "$(megabytes "$bytes")" - - -
    done
    row "step of gpt2-124m, bf16" ms \
        "$(on_cpu bench step --model gpt2-124m --precision bf16 --steps 7 | number ms_per_step "")" \
        "$(number ms_per_step '"gpt2-124m"' '"bf16"' <"$found/torch.jsonl")" \
        "$(number ms_per_step '"gpt2-124m"' '"bf16"' <"$found/torch512.jsonl")" - -
}

megabytes() { echo "$1" | awk '{ print $1 + 0 ? $1 / 1e6 : "-" }'; }

part_generate() {
    for dtype in f32 bf16; do
        row "weights read while gpt2-124m writes, $dtype" GB/s \
            "$(on_cpu bench generate --model gpt2-124m --precision $dtype | number weights_gbps "")" - - - "$memory"
    done
}

part_vulkan() {
    for model in llama-2 llama-12; do
        row "step of $model, lavapipe" ms "$(on_vulkan bench step --model $model --steps 5 | number ms_per_step "")" - - \
            "$(peer ggml vulkan $model | number ms_per_step "")" -
    done
    for n in 1 8 512; do
        for dtype in f16 f32; do
            row "matmul 4096x14336 ($dtype) by $n vectors, lavapipe" GFLOP/s \
                "$(on_vulkan bench op --op matmul --shape ${n}x4096x14336 --transpose nt --dtype f32,$dtype | number gflops "")" - - \
                "$(peer ggml-ops MUL_MAT "type_a=$dtype,type_b=f32,m=4096,n=$n,k=14336" | number gflops "")" -
        done
    done
    row "attention 8 heads of 64, 1024 keys, causal, lavapipe" GFLOP/s \
        "$(on_vulkan bench op --op attention --shape 1x8x1024x64 | number gflops "")" - - - -
}

part_start() {
    on_vulkan bench start --model gpt-tiny >/dev/null || true # fills the caches
    row "start to the first step of gpt-tiny beyond it, lavapipe" ms \
        "$(on_vulkan bench start --model gpt-tiny | number beyond_step_ms "")" - - - 150
    row "opening a device where there is no Vulkan driver" ms \
        "$(VK_ICD_FILENAMES=/nonexistent VK_DRIVER_FILES=/nonexistent "$hekla" bench start --model gpt-tiny 2>/dev/null | number open_ms "")" \
        - - - 20
    row "compiling the step of gpt2-124m, CPU" ms "$(on_cpu bench start --model gpt2-124m | number compile_ms "")" - - - 50
    row "the shared library" MB "$(megabytes "$(wc -c <build/libhekla.so)")" - - - 8
}

# ---- The table ----

"$found/limits" >"$found/limits.jsonl" || echo "Some limits could not be measured." >&2
f32=$(number gflops multiply-adds <"$found/limits.jsonl")
bf16=$(number gflops "dot products" <"$found/limits.jsonl")
tiles=$(number gflops tiles <"$found/limits.jsonl")
memory=$(number gbps memory <"$found/limits.jsonl")
{
    echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads, $(date -u +%Y-%m-%d)."
    echo "Limits: $f32 GFLOP/s of f32 multiply-adds, $bf16 of bf16 dot products ($tiles in tiles), $memory GB/s read from memory."
    [ -z "$peers" ] || echo "Peers: $(sh tests/bench/peers.sh versions | paste -sd ,)."
    echo
    echo "| work | unit | Hekla | PyTorch or OpenBLAS as packaged | with AVX-512 | ggml | limit | x packaged | x AVX-512 | x ggml | of the limit |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|"
} >"$found/table.md"
for part in $parts; do
    "part_$part"
done
cat "$found/table.md"
