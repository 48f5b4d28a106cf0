#!/bin/sh
# What others reach on this machine on the same work, as JSON lines: PyTorch, ggml and OpenBLAS, as Debian's newest builds,
# in a Debian root of their own (3 GB under ~/.cache/hekla/peers, made once; needs root). Compare in one sitting.
#
#   sh tests/bench/peers.sh torch [--models M,...] [--dtypes f32,bf16]   whole training steps on the CPU (torch_step.py)
#   sh tests/bench/peers.sh ggml cpu|vulkan llama-2|llama-12             the same (ggml_step.cpp); vulkan: on lavapipe
#   sh tests/bench/peers.sh ggml-ops OP PARAMETERS                       ggml's own test-backend-ops on lavapipe: minutes
#   sh tests/bench/peers.sh blas                                         sgemm (sgemm.c)
#   sh tests/bench/peers.sh versions                                     of all of them, and of lavapipe's Mesa
#   sh tests/bench/peers.sh shell COMMAND...                             a command in the root: /hekla is the project
#
# torch and blas take the kernels that OpenBLAS chooses; with HEKLA_PEERS_AVX512=1 those for AVX-512, which on newer AMD
# processors it does not. Exits with 77 where there can be no root, and says why.
set -eu
cd "$(dirname "$0")/../.."
. cmake/packages.sh
. tests/debian.sh

packages="ca-certificates mesa-vulkan-drivers libcjson1 libggml-dev libggml0 libggml0-backend-vulkan llama.cpp-tests
    python3-torch python3-numpy libopenblas0-openmp libopenblas-openmp-dev g++"
folder=${XDG_CACHE_HOME:-$HOME/.cache}/hekla/peers
root=$folder/sid-$(echo "$packages" | sha256sum | cut -c 1-12)
no_root() {
    echo "No peers: $*." >&2
    exit 77
}
inside() {
    in_root "$root" "$folder/build" env GGML_VK_VISIBLE_DEVICES=0 \
        ${HEKLA_PEERS_AVX512:+OPENBLAS_CORETYPE=SkylakeX} \
        LD_LIBRARY_PATH="/usr/lib/$(uname -m)-linux-gnu/openblas-openmp" "$@"
}

# compiled SOURCE COMPILER...: the program of that source, made where it is older
compiled() {
    source=$1 compiler=$2 program=${1%.*}
    shift 2
    [ -n "$(find "$folder/build/$program" -newer "tests/bench/$source" 2>/dev/null)" ] ||
        inside "$compiler" -O2 "/hekla/tests/bench/$source" "$@" -o "/build/$program"
}

what=${1-}
[ $# = 0 ] || shift
[ -n "$what" ] || { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
debian_root "$root" sid "$packages"
case $what in
    torch) inside python3 /hekla/tests/bench/torch_step.py "$@" ;;
    ggml)
        compiled ggml_step.cpp g++ -lggml -lggml-base
        inside /build/ggml_step "$@" 2>/dev/null ;;
    ggml-ops)
        # "...: 852 runs - 20000.00 us/run - 117.44 MFLOP/run - 5.87 GFLOPS", in colours
        inside "/usr/libexec/$(uname -m)-linux-gnu/ggml/test-backend-ops" perf -b Vulkan0 -o "$1" -p "$2" 2>/dev/null |
            sed -n 's/^ *\(.*\): .*FLOP\/run - [^ ]*m *\([0-9.]*\) \([MGT]\)FLOPS.*/\2 \3 \1/p' |
            awk '{ scale = $2 == "M" ? 1e-3 : $2 == "T" ? 1e3 : 1; flops = $1 * scale; $1 = $2 = ""
                   printf "{\"peer\": \"ggml\", \"op\": \"%s\", \"gflops\": %.3f}\n", substr($0, 3), flops }' ;;
    blas)
        compiled sgemm.c gcc -lopenblas
        inside /build/sgemm ;;
    versions) inside dpkg-query -W python3-torch libggml0 libopenblas0-openmp mesa-vulkan-drivers ;;
    shell) inside "$@" ;;
    *) echo "No peer $what; see the head of $0." >&2; exit 2 ;;
esac
