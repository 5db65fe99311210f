#!/bin/sh
# Fetches the Go toolchain pinned in sums.txt from the Go module proxy, verifies it and
# leaves it in DIR/go. Usage: fetch.sh DIR
#
# The proxy is $GOPROXY (an environment variable, or what an installed go has configured),
# else proxy.golang.org. The checksum is Go's own h1: SHA-256 over the sorted lines
# "<sha256 of the file>  <name>" of everything in the module zip.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: fetch.sh DIR}
sums=$here/sums.txt

die() { echo "toolchain: $*" >&2; exit 1; }

version=$(awk '$1 == "go_version" { print $2 }' "$sums")
[ "$(uname -s)" = Linux ] || die "the pinned toolchain is for Linux; install Go $version yourself"
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) die "no pinned toolchain for $(uname -m): install Go $version yourself" ;;
esac
mod=v0.0.1-go$version.linux-$arch
want=$(awk -v m="$mod" '$1 == m { print $2 }' "$sums")
[ -n "$want" ] || die "$sums has no checksum for $mod"

if [ "$(cat "$dir/go/.h1" 2>/dev/null)" = "$want" ]; then
	echo "toolchain: Go $version is in $dir/go already"
	exit 0
fi

for t in curl:curl unzip:unzip sha256sum:coreutils base64:coreutils; do
	command -v "${t%%:*}" >/dev/null 2>&1 || die "${t%%:*} is missing (package ${t##*:}): run make deps"
done

proxy=${GOPROXY:-}
if [ -z "$proxy" ] && command -v go >/dev/null 2>&1; then
	proxy=$(GOTOOLCHAIN=local go env GOPROXY 2>/dev/null || true)
fi
[ -n "$proxy" ] || proxy=https://proxy.golang.org

mkdir -p "$dir"
tmp=$(mktemp -d "$dir/toolchain.XXXXXX")
trap 'chmod -R u+w "$tmp" 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 1' INT TERM HUP

got=
for p in $(echo "$proxy" | tr ',|' '  '); do
	case $p in direct | off) continue ;; esac
	url=${p%/}/golang.org/toolchain/@v/$mod.zip
	echo "toolchain: fetching Go $version for linux/$arch from the module proxy"
	if curl -fsSL --netrc-optional --retry 3 --connect-timeout 20 --max-time 900 -o "$tmp/go.zip" "$url" </dev/null; then
		got=yes
		break
	fi
done
[ -n "$got" ] || die "no module proxy of GOPROXY served golang.org/toolchain@$mod; set GOPROXY to one that does"

unzip -q "$tmp/go.zip" -d "$tmp" </dev/null || die "the fetched zip does not unpack"
root=$tmp/golang.org/toolchain@$mod
[ -d "$root" ] || die "the fetched zip does not hold golang.org/toolchain@$mod"

# sha256sum escapes names with backslashes or newlines: the toolchain has none.
sum=h1:$(cd "$tmp" && find "golang.org/toolchain@$mod" -type f -print | LC_ALL=C sort |
	tr '\n' '\0' | xargs -0 sha256sum | sha256sum | cut -c1-64 | tr -d '\n' |
	sed 's/../\\x&/g' | xargs -0 printf '%b' | base64)
[ "$sum" = "$want" ] || die "checksum of $mod is $sum, pinned is $want: not used"

# A module zip carries no modes.
chmod 755 "$root"/bin/* "$root"/pkg/tool/linux_"$arch"/* 2>/dev/null || true
echo "$want" >"$root/.h1"
rm -rf "$dir/go"
mv "$root" "$dir/go"
GOTOOLCHAIN=local "$dir/go/bin/go" version
