#!/bin/sh
# Installs into a prefix of its own and builds a stranger's program against it: in C and C++, with CMake and with
# pkg-config, shared and static. The shared library's name, and that it shows nothing but hk_ names.
set -eu
if [ -n "$HEKLA_SANITIZE" ]; then
    echo "skipped: a program would need the sanitizers' flags too"
    exit 77
fi
if ! command -v c++ >/dev/null || ! command -v pkg-config >/dev/null; then
    echo "skipped: needs c++ and pkg-config"
    exit 77
fi
CMAKE_GENERATOR=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$HEKLA_BUILD/CMakeCache.txt") # the one that is there
export CMAKE_GENERATOR
work=$HEKLA_BUILD/tests/install
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"
"$HEKLA_CMAKE" --install "$HEKLA_BUILD" --prefix "$prefix" >"$work/install.log"

library=$(find "$prefix" -name libhekla.so)
[ -n "$library" ] || { echo "FAILED: no libhekla.so"; exit 1; }
readelf -d "$library" | grep -q 'SONAME.*\[libhekla.so.0\]' || { echo "FAILED: soname"; exit 1; }
if nm -D --defined-only "$library" | awk '{ print $3 }' | grep -v '^hk_'; then
    echo "FAILED: the library shows these names"
    exit 1
fi
"$prefix/bin/hekla" --version

echo "-- CMake"
"$HEKLA_CMAKE" -S "$HEKLA_SOURCE/tests/install" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$work/cmake.log"
"$HEKLA_CMAKE" --build "$work/cmake" >>"$work/cmake.log"
for name in c_hekla c_hekla_static cxx_hekla cxx_hekla_static; do "$work/cmake/$name"; done

echo "-- pkg-config"
PKG_CONFIG_PATH=$(dirname "$library")/pkgconfig
LD_LIBRARY_PATH=$(dirname "$library")
export PKG_CONFIG_PATH LD_LIBRARY_PATH
flags=$(pkg-config --cflags --libs hekla)
static=$(pkg-config --cflags --libs --static hekla | sed 's/-lhekla/-l:libhekla.a/')
cp "$HEKLA_SOURCE/tests/install/main.c" "$work/main.cpp"
# shellcheck disable=SC2086 # the flags are words
{
    "$HEKLA_CC" -std=c11 -Wall -Wextra -pedantic -Werror "$HEKLA_SOURCE/tests/install/main.c" $flags -o "$work/c_shared"
    "$HEKLA_CC" "$HEKLA_SOURCE/tests/install/main.c" $static -o "$work/c_static"
    c++ -std=c++17 -Wall -Wextra -pedantic -Werror "$work/main.cpp" $flags -o "$work/cxx_shared"
    c++ "$work/main.cpp" $static -o "$work/cxx_static"
}
for name in c_shared c_static cxx_shared cxx_static; do "$work/$name"; done

echo "-- as a part of another project"
mkdir "$work/part"
cat >"$work/part/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.22)
project(part LANGUAGES C)
set(HEKLA_VULKAN OFF)
add_subdirectory($HEKLA_SOURCE hekla)
add_executable(part $HEKLA_SOURCE/tests/install/main.c)
target_link_libraries(part PRIVATE hekla::hekla)
END
"$HEKLA_CMAKE" -S "$work/part" -B "$work/part/build" >"$work/part.log"
"$HEKLA_CMAKE" --build "$work/part/build" --target help | grep -q 'test_ops' && { echo "FAILED: tests in it"; exit 1; }
echo "all of it works"
