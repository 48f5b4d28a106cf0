#!/bin/sh
# Shaders that were compiled elsewhere make the same library without glslc (HEKLA_SPIRV), and those of other shaders are
# refused.
set -eu
shaders=$HEKLA_BUILD/shaders
if [ ! -e "$shaders/shaders.sha256" ]; then
    echo "skipped: this build compiled no shaders"
    exit 77
fi
CMAKE_GENERATOR=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$HEKLA_BUILD/CMakeCache.txt") # the one that is there
export CMAKE_GENERATOR
work=$HEKLA_BUILD/tests/spirv
rm -rf "$work"
mkdir -p "$work"
"$HEKLA_CMAKE" --build "$HEKLA_BUILD" --target hekla_spirv >"$work/spirv.log"

configure() { # FOLDER: with the SPIR-V there
    "$HEKLA_CMAKE" -S "$HEKLA_SOURCE" -B "$work/build" -DCMAKE_C_COMPILER="$HEKLA_CC" -DHEKLA_SPIRV="$1" \
        -DHEKLA_TESTS=OFF -DHEKLA_EXAMPLES=OFF >"$work/configure.log" 2>&1
}

configure "$HEKLA_BUILD/spirv" || { cat "$work/configure.log"; exit 1; }
if grep -q '^GLSLC' "$work/build/CMakeCache.txt"; then
    echo "FAILED: glslc was looked for"
    exit 1
fi
cmp "$shaders/shader_table.c" "$work/build/shaders/shader_table.c"
"$HEKLA_CC" -fsyntax-only -I "$HEKLA_SOURCE/src" -I "$HEKLA_SOURCE/include" -I "$HEKLA_BUILD/spirv" \
    "$work/build/shaders/shader_table.c"

cp -r "$HEKLA_BUILD/spirv" "$work/other"
echo 0123 >"$work/other/shaders.sha256"
if configure "$work/other"; then
    echo "FAILED: SPIR-V of other shaders was taken"
    exit 1
fi
grep -q 'holds no SPIR-V' "$work/configure.log" || { cat "$work/configure.log"; exit 1; }
