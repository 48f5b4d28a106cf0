#!/bin/sh
# Inside the lab's root: runs a command on one device of devices.txt. Without a command: what the lab does with each,
# with its output to a file.
#
#   sh tests/lab/inside.sh sh /hekla/tests/lab/device.sh DEVICE [COMMAND...]       for example: navi31 vulkaninfo
set -eu
name=${1:?usage: device.sh DEVICE [COMMAND...]}
shift
row=$(grep "^$name " "$(dirname "$0")/devices.txt") || {
    echo "devices.txt has no device $name" >&2
    exit 2
}
# shellcheck disable=SC2086 # its fields
set -- $row -- "$@"
shim=$2 driver=$3 which= preload=
[ "$shim" = - ] || preload=$(echo /usr/lib/*/lib"${shim}"_noop_drm_shim.so)
[ "$4" = -- ] || { which=$4; shift; }
shift 4
if [ $# = 0 ]; then
    set -- /build/tests/lab/hekla_lab "$name" "/build/lab/$name.json"
    exec >"/build/lab/$name.log" 2>&1
fi

icd=/usr/share/vulkan/icd.d/${driver}_icd.json
# shellcheck disable=SC2086 # none is no argument
exec env $which VK_ICD_FILENAMES="$icd" VK_DRIVER_FILES="$icd" XDG_CACHE_HOME="/tmp/$name" \
    LD_PRELOAD="$preload" "$@"
