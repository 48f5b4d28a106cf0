#!/bin/sh
# Runs a command in the lab's root (see root.sh), which it makes where it is missing.
#
#   sh tests/lab/inside.sh COMMAND...       for example: vulkaninfo --summary
set -eu
cd "$(dirname "$0")/../.."
. cmake/packages.sh
. tests/lab/root.sh
make_root
inside "$@"
