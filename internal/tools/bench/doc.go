// Command bench measures vtgt beside its peers and beside what the machine could do at
// best, in one run: iSCSI against tgtd and gotgt, vhost-user-scsi through a ring
// client, and what a thousand targets cost.
//
//	go run ./internal/tools/bench [-parts iscsi,vhost,scale] [-rounds 5] [-quick] [-dir DIR] [-o FILE.json] [-against BINARY]
//
// Contenders of one line take turns (A B A B), so that what disturbs the machine
// disturbs all; of the rounds the median, the least and the greatest are told, and the
// same of the ratios of neighbours in time. Everybody has a disk of his own, of one size
// and filled the same way. The target's processor time is its process's clock: all
// threads, to the nanosecond.
//
// iSCSI is driven by qemu-img bench and iscsi-perf, which are other people's and need
// a processor of their own for 60 to 100 thousand requests a second, and by our own
// initiator, which needs far less: a line says when the client was the limit. Virtqueues
// are driven by vhosttest's client.
//
// The limits are measured in the same run: a Go program that does nothing but exchange
// a header for 4 KiB from a random place of a memory as large as the disk, over TCP;
// the same copy within memory; pread(2); a bare ring between two threads; a bare
// exchange of two eventfds between two processes.
//
// At the end come the goals, each with its limit, what was measured, and whether it was
// met. A goal that needs more processors than there are, or that was not measured, is
// SKIPPED and never met; one whose lines are not to be trusted says "noisy".
package main
