#!/bin/sh
# The driver lab: the tests on a newer Mesa, and every shader and whole training steps on GPUs that this machine lacks.
# All of it happens in a Debian 13 root (root.sh), which is made once, and needs root.
#
#   sh tests/lab/run.sh [--accept] [DEVICE...]     devices of devices.txt, or all and the tests
#
# --accept keeps what was found as the report that later runs compare with, which fail where a number is 10 % worse.
# Exits with 77 where it cannot run, and says why.
set -eu
cd "$(dirname "$0")/../.."
. cmake/packages.sh
. tests/lab/root.sh

accept=
[ "${1-}" != --accept ] || { accept=yes; shift; }
all=$(sed -n 's/^\([a-z0-9-]*\) .*/\1/p' tests/lab/devices.txt | tr '\n' ' ')
devices=${*:-$all}
for device in $devices; do
    case " $all" in
        *" $device "*) ;;
        *) echo "No device $device; there are: $all" >&2; exit 2 ;;
    esac
done

make_root
mkdir -p "$lab_build"
exec 8>"$lab_build/lab.lock" # one run at a time builds there
flock 8
status=0

echo "== Lab: build"
inside cmake --preset dev -G Ninja -S /hekla -B /build -DHEKLA_LAB=ON
target=hekla_lab
[ $# -gt 0 ] || target=all
inside cmake --build /build --target $target

if [ $# = 0 ]; then
    echo "== Lab: the tests on lavapipe, $(inside dpkg-query -W mesa-vulkan-drivers | tr '\t' ' ')"
    # but what another driver does not change: tests/run.sh has it; and fewer faults, each of which compiles kernels anew
    inside env HEKLA_TEST_SPARSE=7 ctest --test-dir /build -j "$(nproc)" --output-on-failure \
        -E '^(ops|ops_base|ops_avx.*|ops_amx|shapes|steady_cpu.*|faults|faults_[^v].*|files_.*|fuzz_.*)$' || status=1
fi

echo "== Lab: every shader, and training, on devices that compile and run nothing"
results=$lab_build/lab
rm -rf "$results"
mkdir "$results"
# shellcheck disable=SC2086 # names
printf '%s\n' $devices | inside xargs -P "$(nproc)" -n 1 sh /hekla/tests/lab/device.sh || status=1
found=
for device in $devices; do
    grep -v -e '^Unknown DRM_IOCTL' -e '^WARNING: .* is not a conformant' "$results/$device.log" || true
    [ ! -e "$results/$device.json" ] || found="$found /build/lab/$device.json"
done

echo "== Lab: report"
# shellcheck disable=SC2086 # names
inside /build/tests/lab/hekla_lab report /hekla/tests/lab/report.json $found \
    /build/lab/report.md /build/lab/report.json || status=1
[ -z "$accept" ] || cp "$results/report.md" "$results/report.json" tests/lab/
exit $status
