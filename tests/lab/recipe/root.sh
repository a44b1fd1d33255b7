#!/bin/bash
# The guests' userland: Debian 12, as a folder that hostfs shows to every guest, read-only. A minute or two, once.
#
#     root.sh PACKAGES               makes ./root in the current folder; PACKAGES is a file with one name a line
#
# Built from the host's own apt sources and keys. The guests run the host's binaries, so host and guest are one release.
set -euo pipefail
packages=$(grep -vE '^ *(#|$)' "$1" | paste -sd,)

mapfile -t sources < <(grep -lE '^(deb |Suites:).*[[:space:]]bookworm(-[a-z-]+)?([[:space:]]|$)' \
    /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2> /dev/null || true)
if [ ${#sources[@]} = 0 ]; then
    echo "no apt source of Debian 12 (bookworm) in /etc/apt/sources.list or /etc/apt/sources.list.d" >&2
    exit 1
fi
echo "Debian 12 from ${sources[*]}"
mmdebstrap --quiet --variant=minbase --mode=root --format=directory --aptopt='APT::Install-Recommends "false"' \
    --include="$packages" --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' bookworm root "${sources[@]}"
# Where the guests see what the launcher shares with them.
mkdir root/lab
install -m 755 "$(dirname "$0")/lab-init" root/sbin/lab-init
: > root/etc/fstab
