#!/bin/sh
# The README shows examples/01_mlp.c as it is, and that is under 40 lines.
set -eu
source=${HEKLA_SOURCE:?}
shown=$(sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '1d;$d')
[ "$shown" = "$(cat "$source/examples/01_mlp.c")" ] || { echo "README.md shows another program than examples/01_mlp.c"; exit 1; }
lines=$(wc -l <"$source/examples/01_mlp.c")
[ "$lines" -lt 40 ] || { echo "examples/01_mlp.c has $lines lines"; exit 1; }
# and it learns
case $("${HEKLA_BUILD:?}"/examples/01_mlp | tail -n 1) in
    *"accuracy 100.0 %" | *"accuracy 9"[5-9]*) ;;
    *) echo "examples/01_mlp did not learn"; exit 1 ;;
esac
