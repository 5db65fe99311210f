// Package guest boots small Linux guests under QEMU (TCG) for tests: Debian's
// kernel, a raw newc initramfs made in Go, and an agent inside that runs what
// the test asks for over a serial line.
//
// Packages are downloaded by apt into a cache folder outside version control,
// their SHA-256 sums checked against apt's signed index.
package guest
