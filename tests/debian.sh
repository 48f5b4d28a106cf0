# Debian roots besides the machine's own system, each made once, in a folder of the cache. Sourced, from the project's
# folder, after cmake/packages.sh, by who defines
#
#   no_root WORDS...     says why there is no root, and exits
#
# and it gives
#
#   debian_root FOLDER SUITE "PACKAGES..." [SUITE...]    makes it where it is missing; further suites offer what is asked for
#                                                        as NAME/SUITE
#   in_root FOLDER BUILD COMMAND...                      runs a command in it: /hekla is the project (read-only), /build
#                                                        the folder BUILD

# The machine's own mirror of Debian, or nothing.
debian_mirror() {
    grep -qx 'ID=debian' /etc/os-release 2>/dev/null || return 0
    cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb  *\(\[[^]]*\]  *\)\{0,1\}\([^ ]*\) .* main.*/\2/p' | head -n 1
}

# Takes turns with other runs. What an interrupted one left is removed: its mounts ended with its own mount namespace.
debian_root() {
    root=$1 suite=$2 packages=$3
    shift 3
    [ "$(id -u)" = 0 ] || no_root "it needs root, to change into a Debian root"
    unshare --mount sh -c 'mount -t proc proc /proc' 2>/dev/null || no_root "this machine lets nobody mount"
    [ ! -d "$root" ] || return 0
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || no_root "this machine has no mirror of Debian in its package sources"
    install_packages mmdebstrap debian-archive-keyring || no_root "mmdebstrap cannot be installed"
    mkdir -p "${root%/*}"
    (
        flock 9
        [ -d "$root" ] && exit 0
        echo "Making a Debian root ($suite) in $root" >&2
        rm -rf --one-file-system "$root.part"
        for also in "$suite" "$@"; do
            echo "deb $mirror $also main"
        done >"$root.sources"
        # shellcheck disable=SC2086 # names
        unshare --mount mmdebstrap --quiet --variant=minbase --include="$(echo $packages | tr ' ' ,)" \
            --aptopt='Acquire::Check-Valid-Until "false"' --aptopt="APT::Default-Release \"$suite\"" \
            --customize-hook='mkdir "$1/hekla" "$1/build"' "$suite" "$root.part" - <"$root.sources" >&2 &&
            mv "$root.part" "$root"
    ) 9>"${root%/*}/lock" || no_root "the Debian root ($suite) cannot be made from $mirror"
}

# The mounts are of a namespace of the command's own, so they end with it, however it ends.
in_root() {
    mkdir -p "$2"
    root=$1 build=$2
    shift 2
    unshare --mount --propagation private sh -ec '
        root=$1 project=$2 build=$3
        shift 3
        mount --rbind /dev "$root/dev"
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$project" "$root/hekla"
        mount -o remount,bind,ro "$root/hekla"
        mount --bind "$build" "$root/build"
        exec chroot "$root" env -i HOME=/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
            ${HEKLA_TEST_LONG:+HEKLA_TEST_LONG="$HEKLA_TEST_LONG"} "$@"
    ' inside "$root" "$PWD" "$build" "$@"
}
