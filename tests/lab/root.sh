# The lab's root: Debian 13 with the Mesa of its backports, and the Vulkan tools of the Debian after it: their glslc knows
# bf16 and matrices of whole workgroups. Made once, in a folder of the cache. Sourced, from the project's folder, after
# cmake/packages.sh.
#
#   make_root            makes it where it is missing; 77 where this machine cannot, which it says
#   inside COMMAND...    runs a command in it: /hekla is the project (read-only), /build the folder $lab_build
. tests/debian.sh

lab_packages="gcc g++ libc6-dev cmake ninja-build pkg-config python3-minimal libvulkan-volk-dev libcjson-dev libcmocka-dev
    vulkan-tools"
for package in mesa-vulkan-drivers mesa-drm-shim; do
    lab_packages="$lab_packages $package/trixie-backports"
done
for package in glslc libshaderc-dev libshaderc1 spirv-tools libvulkan1 libvulkan-dev vulkan-validationlayers; do
    lab_packages="$lab_packages $package/forky"
done

lab_cache=${XDG_CACHE_HOME:-$HOME/.cache}/hekla/lab
lab_root=$lab_cache/trixie-$(echo "$lab_packages" | sha256sum | cut -c 1-12)
lab_build=${HEKLA_LAB_BUILD:-$PWD/build-lab}

no_root() {
    echo "No driver lab: $*." >&2
    exit 77
}

make_root() { debian_root "$lab_root" trixie "$lab_packages" trixie-backports forky; }
inside() { in_root "$lab_root" "$lab_build" "$@"; }
