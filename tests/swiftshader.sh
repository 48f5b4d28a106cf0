#!/bin/sh
# Puts SwiftShader, a Vulkan driver without a GPU, into a folder: from Debian's package chromium-common, which is unpacked,
# not installed.
#
#   sh tests/swiftshader.sh FOLDER
set -eu
folder=${1:?usage: swiftshader.sh FOLDER}
mkdir -p "$folder"
cd "$folder"
if ! { apt-get download -q chromium-common && dpkg -x chromium-common_*.deb unpacked; } >download.log 2>&1; then
    echo "No SwiftShader (apt-get cannot download chromium-common): its tests are left out." >&2
    exit 1
fi
mv unpacked/usr/lib/chromium/libvk_swiftshader.so .
sed "s|\"library_path\": \".*libvk_swiftshader.so\"|\"library_path\": \"$PWD/libvk_swiftshader.so\"|" \
    unpacked/usr/lib/chromium/vk_swiftshader_icd.json >vk_swiftshader_icd.json
rm -rf unpacked chromium-common_*.deb download.log
