# The system packages that Hekla needs, by their Debian and Ubuntu names; sourced by examples/quickstart.sh,
# tests/run.sh and tests/fuzz/run.sh.

build_packages="gcc libc6-dev cmake ninja-build glslc libshaderc-dev libvulkan-dev libvulkan-volk-dev libcjson-dev"
test_packages="g++ pkg-config libcmocka-dev mesa-vulkan-drivers vulkan-validationlayers"
neon_packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
fuzz_packages="clang libclang-rt-dev"

# install_packages NAME...: those that are missing, with apt; where there is no apt, says which they are and goes on.
install_packages() {
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) in
            installed) ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "There is no apt-get here, so what follows may fail unless these are installed (Debian's names):$missing" >&2
        return 0
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "Neither root nor sudo; please install:$missing" >&2; exit 1; }
        as_root=sudo
    fi
    echo "Installing:$missing"
    $as_root apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list of names
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null
}
