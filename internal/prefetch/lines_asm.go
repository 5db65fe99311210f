//go:build amd64 || arm64 || ppc64le

package prefetch

// lines asks for the n > 0 bytes at address p, for the cache of the second level.
//
//go:noescape
func lines(p uintptr, n int)
