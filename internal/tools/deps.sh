#!/bin/sh
# Prints the packages of deps.txt, installs those that are missing, and says by name
# what could not be installed. Usage: deps.sh [FILE]
set -eu

list=${1:-deps.txt}
want=$(sed -e 's/#.*//' -e 's/[[:space:]]*$//' "$list" | grep -v '^$')
echo "packages vtgt wants ($list):"
grep -v '^#' "$list" | sed 's/^/  /'

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
	echo "this is not a Debian-like system: install the equivalents of the list above yourself" >&2
	exit 1
fi

missing() {
	for p in $want; do
		case $(dpkg-query -W -f='${Status}' "$p" 2>/dev/null || true) in
		*' installed') ;;
		*) echo "$p" ;;
		esac
	done
}

miss=$(missing | tr '\n' ' ')
if [ -z "$miss" ]; then
	echo "all installed"
	exit 0
fi
echo "missing: $miss"

sudo=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "not root and no sudo: as root, run: apt-get update && apt-get install $miss" >&2
		exit 1
	fi
	sudo=sudo
fi
# A failing update is not the end: the lists at hand may suffice.
$sudo apt-get update -q </dev/null || echo "apt-get update failed; trying with the package lists at hand" >&2
# The tgt package must not start a daemon (it would take port 3260): its maintainer
# scripts ask policy-rc.d, where there is none the init system is told by environment.
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends $miss </dev/null || true

miss=$(missing | tr '\n' ' ')
if [ -n "$miss" ]; then
	echo "still missing: $miss" >&2
	exit 1
fi
echo "all installed"
