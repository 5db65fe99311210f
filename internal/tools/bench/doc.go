// Command bench measures vtgt beside tgtd, the peer it succeeds, through qemu-img's
// iSCSI client: 4 KiB and 1 MiB, depth 1 and 32, reads and writes.
//
//	go run ./internal/tools/bench [-rounds 5] [-quick] [-dir DIR] [-o FILE.json] [-against BINARY]
//
// Both targets run at once, each over an image file of its own, made and filled the
// same way on the same file system; only one is driven at a time, in turn (A B A B),
// so that what disturbs the machine disturbs both. Of the rounds the median, the least
// and the greatest are told, and the median of the ratios of neighbours. The target's
// processor time comes from /proc/PID/stat, all threads.
//
// A line says so when it is not to be trusted: when its rounds lie far apart, when
// others used the machine, or when the client's one thread was the limit (then the
// target's processor time per I/O is the figure to compare).
package main
