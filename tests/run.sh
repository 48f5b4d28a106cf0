#!/bin/sh
# Installs what the tests need, builds, and runs every test; ends with CTest's summary.
#
#   sh tests/run.sh [CTEST OPTION...]        for example -R ops, -LE slow
#
# Vulkan tests run on lavapipe under the validation layers, and the tests of ops and models also on SwiftShader, which is
# taken from Debian's package chromium-common where there is one.
set -eu
cd "$(dirname "$0")/.."
. cmake/packages.sh
# shellcheck disable=SC2086 # lists of names
install_packages $build_packages $test_packages

swiftshader=$PWD/build-dev/swiftshader/vk_swiftshader_icd.json
if [ ! -e "$swiftshader" ]; then
    sh tests/swiftshader.sh "${swiftshader%/*}" || swiftshader=
fi

cmake --preset dev -G Ninja -DHEKLA_WERROR="${CI:+ON}" -DHEKLA_TEST_SWIFTSHADER="$swiftshader"
cmake --build --preset dev
ctest --preset dev -j "$(nproc)" "$@"
