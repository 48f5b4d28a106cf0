#!/bin/sh
# The faults of mutation/faults.txt still fit the sources: each one's text occurs once. (mutation/run.sh plants them.)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
awk -v mode=check -v root="$here/.." -f "$here/mutation/faults.awk" "$here/mutation/faults.txt"
