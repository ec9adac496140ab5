#!/usr/bin/env bash
# Installs what tuwen is built from: Debian 12 and 13, Ubuntu 24.04, by apt.
set -euo pipefail

packages=(
    build-essential cmake ninja-build pkg-config
    libdnnl-dev        # matrix products, convolution
    liblmdb-dev        # shards
    libhdf5-dev        # checkpoints, features
    libjpeg-dev libturbojpeg0-dev libspng-dev libwebp-dev # photographs
    libjansson-dev libyaml-dev libutf8proc-dev
    libdeflate-dev     # CRC-32 of .pt files at memory speed
    libopenmpi-dev openmpi-bin # several ranks
    check              # tests
)

if ! command -v apt-get >/dev/null; then
    echo "install_deps.sh: apt-get was not found; install the equivalents of these Debian packages by hand:" >&2
    echo "  ${packages[*]}" >&2
    exit 1
fi

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "install_deps.sh: all ${#packages[@]} packages are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install_deps.sh: run as root, or install sudo; missing: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
