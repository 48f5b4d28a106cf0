#!/bin/sh
# Builds the fuzzers with Clang and runs each for so many minutes (may be a fraction), one after the other; ends with a
# line for each, and with status 1 where one found something.
#
#   sh tests/fuzz/run.sh MINUTES [NAME...]        for example 10 safetensors
#
# What is tried starts from corpus/NAME, and from what earlier runs found worth keeping (build-fuzz/fuzz/NAME). The input
# of a finding lies in build-fuzz/fuzz: a small one of each belongs into corpus/NAME.
set -u
[ $# -ge 1 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }
cd "$(dirname "$0")/../.." || exit 1
. cmake/packages.sh
# shellcheck disable=SC2086 # lists of names
install_packages $build_packages $fuzz_packages
seconds=$(echo "$1" | awk '{ printf "%d", $1 * 60 }')
shift
[ $# -gt 0 ] || set -- $(ls tests/fuzz/corpus)

cmake --preset fuzz -G Ninja >/dev/null && cmake --build --preset fuzz || exit 1
summary= failed=0
for name in "$@"; do
    work=build-fuzz/fuzz/$name
    mkdir -p "$work"
    echo "== $name, $seconds seconds"
    build-fuzz/tests/fuzz/fuzz_"$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix=build-fuzz/fuzz/"$name"- "$work" tests/fuzz/corpus/"$name" >"$work".log 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work".log)
    covered=$(sed -n 's/.* cov: \([0-9]*\) ft: \([0-9]*\) .*/\1 edges, \2 features/p' "$work".log | tail -n 1)
    if [ $status -eq 0 ]; then
        result="no finding"
    else
        result="FOUND something: build-fuzz/fuzz/$name.log"
        failed=1
        tail -n 40 "$work".log
    fi
    summary="$summary$name: $runs runs, $covered, $result
"
done
printf '%s' "$summary"
exit $failed
