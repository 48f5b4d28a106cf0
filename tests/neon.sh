#!/bin/sh
# Builds the CPU backend for 64-bit ARM, whose vectors are NEON, with Debian's cross compiler, and runs the tests of numbers
# under qemu-user; ends with CTest's summary. Exits with 77 where that cannot be had, and says why.
#
#   sh tests/neon.sh [CTEST OPTION...]
#
# Debian's libraries for ARM are unpacked into the build's folder, not installed: the system stays of one architecture.
set -eu
cd "$(dirname "$0")/.."
. cmake/packages.sh
command -v apt-get >/dev/null || { echo "NEON is not tested: there is no apt-get to take ARM's libraries from."; exit 77; }
# shellcheck disable=SC2086 # lists of names
install_packages $build_packages $neon_packages

NEON_ROOT=$PWD/build-neon/root
export NEON_ROOT
if [ ! -e "$NEON_ROOT/complete" ]; then
    rm -rf "$NEON_ROOT"
    mkdir -p "$NEON_ROOT/state/lists/partial" "$NEON_ROOT/cache/archives/partial"
    (
        cd "$NEON_ROOT"
        : >state/status
        arm() {
            apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$NEON_ROOT/state" \
                -o Dir::State::status="$NEON_ROOT/state/status" -o Dir::Cache="$NEON_ROOT/cache" -o APT::Sandbox::User=root "$@"
        }
        arm update >download.log && arm download libcjson-dev libcjson1 libcmocka-dev libcmocka0 >>download.log
        for package in *.deb; do dpkg -x "$package" .; done
        rm -rf state cache ./*.deb
        touch complete
    ) || { echo "NEON is not tested: apt-get cannot download ARM's libraries."; exit 77; }
fi

cmake --preset neon -G Ninja
cmake --build --preset neon
ctest --preset neon -j "$(nproc)" -R '^(ops|nn|numbers|truth_.*|range_functions|optimizer|nan)$' "$@"
