// Package guest boots small Linux guests under QEMU (TCG) for tests: Debian's
// kernel, a raw newc initramfs made in Go, and an agent inside that does what the
// test asks for over a serial line.
//
// Packages are downloaded by apt into a cache folder outside version control (also of
// a newer release, for its QEMU),
// their SHA-256 sums checked against apt's signed index; no step needs root.
// Everything is bounded in time, and a guest does not outlive its test: QEMU gets
// SIGKILL when the test process ends, however it ends, and the guest powers itself
// off at the end of its life.
package guest
