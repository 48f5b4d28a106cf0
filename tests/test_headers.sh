#!/bin/sh
# Every public header compiles alone, as C11 and as C++17, and its macros mean the same in both.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for header in "$HEKLA_SOURCE"/include/hekla/*.h; do
    name=$(basename "$header")
    if [ "$name" = vulkan.h ]; then
        echo '#include <vulkan/vulkan_core.h>' | "$HEKLA_CC" -fsyntax-only -x c - 2>/dev/null || continue
    fi
    cat >"$work/alone.c" <<END
#include <hekla/$name>
#include <hekla/$name>
#ifdef HK_SHAPE
struct hk_shape shape_of_three(void);
struct hk_shape shape_of_three(void) { return HK_SHAPE(4, 5, 6); }
#endif
#ifdef HK_AXES
struct hk_axes all_axes(void);
struct hk_axes all_axes(void) { return HK_AXES(-1).count ? HK_AXES(0, 1) : HK_ALL_AXES; }
#endif
int nothing;
END
    "$HEKLA_CC" -std=c11 -Wall -Wextra -Wconversion -pedantic -Werror -I"$HEKLA_SOURCE/include" -fsyntax-only "$work/alone.c"
    if command -v c++ >/dev/null; then
        c++ -x c++ -std=c++17 -Wall -Wextra -Wconversion -pedantic -Werror -I"$HEKLA_SOURCE/include" -fsyntax-only "$work/alone.c"
    fi
    echo "$name"
done
if ! command -v c++ >/dev/null; then
    echo "skipped: no c++, as C alone"
    exit 77
fi
