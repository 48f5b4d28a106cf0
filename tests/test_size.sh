#!/bin/sh
# The shared library, with every kernel for every instruction set and every variant of every shader, is small: under 8 MB
# without debug information.
#
#   test_size.sh PROGRAM
set -u
most=8000000
if [ -n "${HEKLA_SANITIZE-}" ]; then
    echo "skipped: sanitizers make the library larger"
    exit 77
fi
stripped=$(mktemp "${TMPDIR:-/tmp}/hekla-size.XXXXXX") || exit 1
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$HEKLA_BUILD/libhekla.so" || exit 1
bytes=$(wc -c <"$stripped")
echo "libhekla.so has $bytes bytes, of $most at most"
[ "$bytes" -gt 100000 ] && [ "$bytes" -lt $most ]
