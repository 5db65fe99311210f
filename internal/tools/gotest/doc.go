// Command gotest runs go test with its arguments and says last, and briefly, what
// failed: of a long log that continuous integration cuts down to its end, that is
// what has to be left. Everything else it prints as go test does.
//
// It first looks for what nearly every test needs, the loopback interface and a TMPDIR
// that may be written to, and gives a TMPDIR whose path is odd, or too long for the
// names of sockets, a short name for the time of the tests.
//
// With -again=REGEXP as its first argument, tests whose names match get a second try,
// alone, when nothing else failed. It is for tests in emulated guests without the
// machine's own virtualization: there a guest may crash of itself (QEMU's TCG does not
// see pages that another process writes, and may run code that it had translated
// before). Tests of durability get none.
package main
