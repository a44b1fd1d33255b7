#!/bin/bash
# What QEMU boots: Debian's stock kernel 6.12 with the modules that the lab uses, a small initrd, and the guests' root as an
# image with those modules in it. Half a minute, once.
#
#     stock.sh ROOT MODULES INITRD-INIT     makes ./vmlinuz, ./initrd, ./root.ext4 and ./linux.version in the current,
#                                           empty folder; ROOT is what root.sh made, MODULES a file of names
#
# The package comes from the host's own apt sources. It is only unpacked: nothing of it is installed on the host.
set -euo pipefail
root=$1 modules=$2 init=$3
meta=linux-image-6.12-amd64

package=$(apt-cache depends "$meta" | awk '/Depends:/ { print $2; exit }')
[ -n "$package" ] || { echo "$meta is in none of your apt sources: apt-cache policy $meta" >&2; exit 1; }
release=${package#linux-image-}
echo "fetching $package"
# apt's own sandbox user may not write here; that is what it warns of, and nothing else is.
apt-get download -q "$package" 2>&1 | grep -v 'pkgAcquire::Run' || true
deb=$(compgen -G "${package}_*.deb") || { echo "apt-get could not download $package" >&2; exit 1; }
dpkg-deb --field "$deb" Version > linux.version
dpkg-deb -x "$deb" tree
rm "$deb"
cp "tree/boot/vmlinuz-$release" vmlinuz

# A name that the kernel does not know would be missed much later, by whoever wants its device.
echo "modules of $(cat linux.version)"
depmod -b tree "$release"
needed() { modprobe -d tree -S "$release" --show-depends "$1" | awk '$1 == "insmod" { print $2 }'; }
grep -vE '^ *(#|$)' "$modules" | while read -r where module; do
    needed "$module" > one || { echo "$package has no module $module" >&2; exit 1; }
    cat one >> all
    if [ "$where" = initrd ]; then cat one >> early; fi
done
rm one

# Hard links, so that nothing is copied: what is added to this tree is not in the other one.
cp -al "$root" image
target=image/usr/lib/modules/$release
mkdir -p "$target"
sort -u all | while read -r file; do
    place=$target/${file#*"/$release/"}
    mkdir -p "$(dirname "$place")"
    case $file in *.xz) xz -dc "$file" > "${place%.xz}" ;; *) cp "$file" "$place" ;; esac
done
cp "tree/lib/modules/$release/"modules.{order,builtin,builtin.modinfo} "$target"
depmod -b image "$release"
echo "$(find "$target" -name '*.ko' | wc -l) modules, $(du -sh "$target" | cut -f1)"

mkdir -p early.d/{bin,proc,sys,dev,root,modules}
install -m 755 "$init" early.d/init
install -m 755 image/bin/busybox early.d/bin/busybox
awk '!seen[$0]++' early | while read -r file; do
    name=$(basename "${file%.xz}")
    cp "$target/$(dirname "${file#*"/$release/"}")/$name" early.d/modules
    echo "$name" >> early.d/modules/order
done
(cd early.d && find . | cpio -o -H newc --quiet --reproducible) > initrd

# A fifth more than its files, for the filesystem's own tables; nobody ever writes to it.
size=$(du -sm --apparent-size image | cut -f1)
mke2fs -q -t ext4 -O ^has_journal -m 0 -d image root.building "$((size * 12 / 10 + 32))M"
rm -rf tree image early.d early all
mv root.building root.ext4
