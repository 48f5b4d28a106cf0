#!/bin/sh
# Plants the faults of faults.txt one at a time and shows which test fails for each.
#
#   sh tests/mutation/run.sh [-b FOLDER] [-w] [-e] [ID or FILE...]
#
# -b  where a copy of the tree is built (build-mutation)        -w  the working tree instead of the last commit
# -e  only the test that the list expects: where it passes, the fault counts as survived
#
# A fault's own test is run first; where that passes, all quick tests. Without IDs, tests/mutation/results.md is written.
# It ends with 0 where every fault was killed. HEKLA_MUTATION_JOBS: how many compilers at once (2).
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
folder=$source/build-mutation
working=false expected_only=false
while getopts b:we option; do
    case $option in
        b) mkdir -p "$OPTARG" && folder=$(cd "$OPTARG" && pwd) ;;
        w) working=true ;;
        e) expected_only=true ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
tree=$folder/tree build=$folder/build tab=$(printf '\t')
jobs=${HEKLA_MUTATION_JOBS:-2}

# Files that are the same keep their times, so that they are not compiled again.
refresh() {
    rm -rf "$folder/fresh" && mkdir -p "$folder/fresh" "$tree" || return 1
    if $working; then (cd "$source" && git ls-files -co --exclude-standard -z | tar c --null -T -)
    else git -C "$source" archive HEAD
    fi | tar x -C "$folder/fresh" || return 1
    (cd "$folder/fresh" && find . -type f) | while read -r file; do
        cmp -s "$folder/fresh/$file" "$tree/$file" && continue
        mkdir -p "$tree/${file%/*}" && cp "$folder/fresh/$file" "$tree/$file"
    done
    (cd "$tree" && find . -type f) | while read -r file; do
        [ -e "$folder/fresh/$file" ] || rm "$tree/$file"
    done
}

compile() { nice ninja -C "$build" -j "$jobs" "$@" >"$folder/build.log" 2>&1; }

# What CTest sets, but for what a fault's own test line says.
set_environment() {
    for file in /usr/share/vulkan/icd.d/lvp_icd*.json /usr/local/share/vulkan/icd.d/lvp_icd*.json; do
        [ -e "$file" ] && export VK_ICD_FILENAMES="$file" VK_DRIVER_FILES="$file" && break
    done
    layer=/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json
    if [ -e "$layer" ]; then export HEKLA_VALIDATE=1; else echo "without the validation layer: some faults will survive"; fi
    export HEKLA_POISON=1 XDG_CACHE_HOME="$folder/cache" HEKLA_SOURCE="$tree" HEKLA_BUILD="$build"
    ulimit -v 16000000 # what asks for far too much memory must not have it
    ulimit -c 0
}

# run_test SECONDS [VARIABLE=value...] PROGRAM ARGUMENT...: 0 where it passes; $how says why not
run_test() {
    limit=$1
    shift
    assignments=
    while [ "${1#*=}" != "$1" ]; do assignments="$assignments $1" && shift; done
    program=$1
    shift
    # shellcheck disable=SC2086 # words
    env $assignments timeout -k 5 "$limit" nice "$build/tests/$program" "$@" >"$folder/test.log" 2>&1
    code=$?
    how=
    case $code in
        0) grep -Eq 'VUID-|SYNC-HAZARD|Validation (Error|Warning|Performance)' "$folder/test.log" && how=", by a validation message" && return 1
           return 0 ;;
        77) echo "skipped here: $program" && return 0 ;;
        124 | 137) how=", which hung" ;;
        1[3-9][0-9]) how=", which crashed" ;;
    esac
    return 1
}

# The quick tests and those of ops; $killer is the one that fails.
run_all_tests() {
    killer=
    compile all || return 1
    (cd "$build" && nice ctest -LE slow -E '^(steady|install|readme|headers|mutation|ops_base|ops_avx2)' --timeout 600 \
        --stop-on-failure >"$folder/test.log" 2>&1) && return 0
    killer=$(sed -n 's/.*[0-9]* - \([a-z0-9_]*\) (\(.*\))$/CTest \1 (\2)/p' "$folder/test.log" | head -n 1)
    return 1
}

seconds() { date +%s; }

# Sets $verdict; the file has the fault in it.
try() {
    program=$(printf '%s\n' "$test" | tr ' ' '\n' | grep -m 1 '^test_')
    if ! compile "$program"; then
        verdict="DOES NOT BUILD"
        grep -m 3 -E 'error|FAILED' "$folder/build.log"
        return
    fi
    limit=$(sed -n "s|^\([0-9]*\)$tab$test\$|\1|p" "$folder/baseline")
    # shellcheck disable=SC2086 # words
    if ! run_test $((10 * limit + 30)) $test; then
        verdict="$test$how"
    elif $expected_only || run_all_tests; then
        verdict=SURVIVED
    else
        verdict="${killer:-DOES NOT BUILD} (not by its own test)"
    fi
}

# Every test must pass without a fault, or that it fails would mean nothing.
check_baseline() {
    : >"$folder/baseline"
    cut -f 3 "$folder/list" | sort -u | while read -r test; do
        begin=$(seconds)
        # shellcheck disable=SC2086 # words
        if ! run_test 600 $test; then
            echo "fails without any fault: $test$how"
            tail -n 5 "$folder/test.log"
            exit 1
        fi
        printf '%s\t%s\n' $(($(seconds) - begin)) "$test" >>"$folder/baseline"
    done
}

write_results() {
    total=$(wc -l <"$folder/table") survivors=$(grep -c '| SURVIVED |' "$folder/table")
    built=$(grep -c '| DOES NOT BUILD' "$folder/table")
    echo "# Planted faults and the tests that fail for them"
    echo
    echo "Made by \`sh tests/mutation/run.sh\` from [faults.txt](faults.txt), of commit $(git -C "$source" rev-parse --short HEAD)."
    echo
    echo "**$total faults: $((total - survivors - built)) killed, $survivors survived, $built did not build;" \
         "$(($(seconds) - start)) seconds.**"
    echo
    echo "| fault | file | what it breaks | killed by | seconds |"
    echo "|---|---|---|---|---:|"
    cat "$folder/table"
}

start=$(seconds)
mkdir -p "$folder" && refresh && cp "$here/faults.txt" "$here/faults.awk" "$folder" || exit 1
awk -v mode=check -v root="$tree" -f "$folder/faults.awk" "$folder/faults.txt" || exit 1
awk -v mode=list -f "$folder/faults.awk" "$folder/faults.txt" >"$folder/list"
whole=true
if [ $# -gt 0 ]; then
    whole=false
    for id; do grep -E "^$id$tab|^[^$tab]*$tab$id$tab" "$folder/list"; done >"$folder/some"
    mv "$folder/some" "$folder/list"
fi
[ -s "$folder/list" ] || { echo "no such fault: $*" && exit 2; }
set_environment
if [ ! -e "$build/build.ninja" ]; then
    cmake -S "$tree" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_C_FLAGS=-O1 -DHEKLA_EXAMPLES=OFF \
        >"$folder/build.log" 2>&1 || { cat "$folder/build.log" && exit 1; }
fi
# shellcheck disable=SC2046 # words
compile $(cut -f 3 "$folder/list" | tr ' ' '\n' | grep '^test_.' | grep -v = | sort -u) ||
    { tail -n 20 "$folder/build.log" && exit 1; }
check_baseline || exit 1

planted=
restore() { [ -z "$planted" ] || cp "$folder/original" "$tree/$planted"; planted=; }
trap 'restore; exit 130' INT TERM
: >"$folder/table"
count=0 bad=0
while IFS=$tab read -r id file test what <&3; do
    began=$(seconds) verdict="DOES NOT BUILD"
    cp "$tree/$file" "$folder/original" && planted=$file
    awk -v mode=plant -v root="$tree" -v id="$id" -f "$folder/faults.awk" "$folder/faults.txt" >"$folder/planted" &&
        cp "$folder/planted" "$tree/$file" && try
    restore
    took=$(($(seconds) - began)) count=$((count + 1))
    case $verdict in SURVIVED | "DOES NOT BUILD"*) bad=$((bad + 1)) ;; esac
    echo "$count $id: $verdict ($took s)"
    echo "| $id | $file | $what | $verdict | $took |" >>"$folder/table"
done 3<"$folder/list"
if $whole && ! $expected_only; then write_results >"$here/results.md"; fi
echo "$count faults, $bad not killed, $(($(seconds) - start)) seconds"
[ "$bad" -eq 0 ]
