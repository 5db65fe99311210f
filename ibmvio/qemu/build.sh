#!/bin/sh
# Builds vtgt-vscsi.so for the qemu-system-ppc64 that is installed, against the headers of
# exactly its version, in CACHE/<version>/. Nothing is installed: sources and two
# libraries' headers come by apt with a configuration of their own and are unpacked there.
#   build.sh CACHE        QEMU=program, CC=compiler
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
qemu=${QEMU:-qemu-system-ppc64}
cc=${CC:-gcc}

fail() { echo "qemu-vio: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing (package $2): run make deps"; }
need "$qemu" qemu-system-ppc
need "$cc" gcc
need python3 python3
need dpkg-source dpkg-dev
need apt-get apt

full=$("$qemu" --version | sed -n 's/^QEMU emulator version //p')
short=${full%% *}
[ -n "$short" ] || fail "$qemu --version says nothing known"
out=$PWD/$short
lib=$out/vtgt-vscsi.so
stamp=$(printf '%s\n' "$full" | cat - "$here/vtgt-vscsi.c" "$here/build.sh" | sha256sum | cut -d' ' -f1)
if [ -e "$lib" ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
	echo "qemu-vio: $lib is up to date (QEMU $full)"
	exit 0
fi

program=$(command -v "$qemu")
package=$(dpkg -S "$(readlink -f "$program")" 2>/dev/null | sed 's/:.*//; q')
[ -n "$package" ] || fail "$program is of no Debian package: it is built against the sources of a package's version only"
version=$(dpkg-query -W -f '${source:Version}' "$package")
triple=$("$cc" -dumpmachine)
case $triple in
x86_64-*) host=HOST_X86_64 tcg=i386 ;;
aarch64-*) host=HOST_AARCH64 tcg=aarch64 ;;
*) fail "hosts of $triple are not known here: add them to build.sh" ;;
esac

# The headers, once for each version of the package.
tree=$out/$(printf %s "$version" | tr ':+~' '___')
if [ ! -e "$tree/done" ]; then
	rm -rf "$out" && mkdir -p "$tree"
	cd "$tree"
	mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts debs
	# The source side of those repositories that have the package.
	sites=$(apt-cache madison "$package" | awk -F'|' '{split($3, f, " "); print f[1]}' | sort -u)
	[ -n "$sites" ] || fail "apt knows no repository of $package: run apt-get update"
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
		[ -e "$f" ] || continue
		case $f in
		*.list) awk -v sites="$sites" '{n = split(sites, u, "\n"); for (i = 1; i <= n; i++)
			if ($1 == "deb" && index($0, u[i])) {sub(/^deb/, "deb-src"); print}}' "$f" ;;
		esac
	done >apt/parts/vtgt.list
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -e "$f" ] || continue
		awk -v RS= -v ORS='\n\n' -v sites="$sites" '{n = split(sites, u, "\n"); for (i = 1; i <= n; i++)
			if (index($0, u[i])) {sub(/Types:[^\n]*/, "Types: deb-src"); print; next}}' "$f"
	done >apt/parts/vtgt.sources
	o="-oDir::State::Lists=$PWD/apt/lists -oDir::Cache=$PWD/apt/cache -oDir::Etc::SourceList=/dev/null -oDir::Etc::SourceParts=$PWD/apt/parts -oAPT::Sandbox::User= -oAcquire::Languages=none"
	echo "qemu-vio: fetching the sources of qemu $version"
	apt-get $o update -qq || fail "apt-get update failed"
	apt-get $o source -qq --download-only "qemu=$version" >apt/log 2>&1 || {
		cat apt/log >&2
		fail "apt has no source of qemu $version, which $program is built from: install the present qemu-system-ppc"
	}
	(cd debs && apt-get -oAPT::Sandbox::User= download -qq libglib2.0-dev libfdt-dev) || fail "apt-get download failed: run apt-get update"
	dpkg-source --no-check -x qemu_*.dsc src >apt/log 2>&1 || { cat apt/log >&2; fail "dpkg-source failed"; }
	for d in debs/*.deb; do dpkg -x "$d" sysroot; done
	# Of a configured tree the device needs no more than this; vv_layout() and the
	# version's comparison watch over it when the device is made.
	mkdir gen
	(cd src && python3 scripts/qapi-gen.py -b -o ../gen/qapi qapi/qapi-schema.json)
	printf '#define %s 1\n' CONFIG_LINUX CONFIG_POSIX CONFIG_IOVEC CONFIG_INT128 $host >gen/config-host.h
	printf '#define %s 1\n' TARGET_PPC64 TARGET_PPC TARGET_BIG_ENDIAN TARGET_SUPPORTS_MTTCG CONFIG_SOFTMMU CONFIG_TCG >gen/config-target.h
	printf '#define TARGET_NAME "ppc64"\n' >>gen/config-target.h
	: >gen/config-devices.h
	mkdir keep
	for d in include target/ppc tcg/$tcg; do mkdir -p "keep/$d" && cp -R "src/$d/." "keep/$d/"; done
	rm -rf src apt debs qemu_*
	touch done
fi

cd "$tree"
echo "qemu-vio: compiling for QEMU $full"
glib=sysroot/usr/include/glib-2.0
"$cc" -std=gnu11 -O2 -fPIC -shared -Wl,-z,lazy -Wall -Werror -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DNEED_CPU_H \
	'-DCONFIG_TARGET="config-target.h"' '-DCONFIG_DEVICES="config-devices.h"' "-DVTGT_QEMU_VERSION=\"$full\"" \
	-Igen -isystem keep -isystem keep/include -isystem keep/target/ppc -isystem keep/tcg/$tcg \
	-isystem sysroot/usr/include -isystem $glib -isystem "$(echo sysroot/usr/lib/*/glib-2.0/include)" -o "$lib.new" "$here/vtgt-vscsi.c"
mv "$lib.new" "$lib"
LD_PRELOAD=$lib "$qemu" -device vtgt-vscsi,help | grep -q 'path=' || fail "QEMU does not take $lib"
echo "$stamp" >"$out/stamp"
echo "qemu-vio: built $lib: LD_PRELOAD=$lib $qemu ... -device vtgt-vscsi,path=SOCKET"
