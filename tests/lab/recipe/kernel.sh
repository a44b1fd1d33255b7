#!/bin/bash
# The guests' kernel: User-Mode Linux from Debian's source, mended by PATCH, as uml.config wants it. About 15 minutes of one CPU,
# once.
#
#     kernel.sh CONFIG PATCH JOBS    makes ./linux and ./linux.version in the current, empty folder
#
# The package comes from the host's own apt sources, so a mirror or a snapshot of yours serves here too.
set -euo pipefail
config=$(realpath "$1") patch=$(realpath "$2") jobs=$3
source=linux-source-6.12

echo "fetching $source"
# apt's own sandbox user may not write here; that is what it warns of, and nothing else is.
apt-get download -q "$source" 2>&1 | grep -v 'pkgAcquire::Run' || true
deb=$(compgen -G "${source}_*.deb") || { echo "apt-get could not download $source: is it in your apt sources? apt-cache policy $source" >&2; exit 1; }
dpkg-deb --fsys-tarfile "$deb" | tar -x --wildcards "./usr/src/$source.tar.xz"
dpkg-deb --field "$deb" Version > linux.version
rm "$deb"

echo "unpacking $source $(cat linux.version)"
mkdir tree
tar -xf "usr/src/$source.tar.xz" -C tree --strip-components 1
rm -r usr

cd tree
# No fuzz: what no longer applies as it stands has to be looked at.
patch --strip 1 --fuzz 0 --quiet < "$patch"
cp "$config" kernel/configs/lab.config
make -s ARCH=um allnoconfig lab.config > ../config.log
# The configuration tool drops in silence what it does not know, or what lacks something: that would be missed much later.
missing=$(grep -E '^CONFIG_[A-Z0-9_]+=' "$config" | grep -v '=n$' | grep -vxFf .config || true)
if [ -n "$missing" ]; then
    printf 'these lines of uml.config did not take:\n%s\n' "$missing" >&2
    exit 1
fi
echo "compiling with $jobs jobs"
make -s ARCH=um -j"$jobs" linux > ../make.log 2>&1 || { tail -40 ../make.log >&2; exit 1; }
strip -o ../linux linux
cd ..
rm -rf tree config.log make.log
