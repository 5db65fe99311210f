// Command holdvtgt is vtgt whose stores hold what a test wants held, as a device that
// hangs does: the daemon and its front ends are those of the program.
//
//	holdvtgt serve --config FILE
//
// A line on standard input is an order: "hold DISK", "keep DISK" (the same, of a device that
// aborts can reach), "release DISK" or "held DISK". Each is answered on standard output by
// the number of operations that are held.
package main
