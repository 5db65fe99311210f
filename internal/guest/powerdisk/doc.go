// Package powerdisk is a disk for a QEMU guest that loses power honestly: it has a
// volatile write cache, and what no flush made stable may be gone after PowerCut.
//
// Killing QEMU alone is no loss of power for a disk behind it: whatever QEMU wrote to
// an image file, flushed or not, is in the host's page cache and stays there, so that
// only what the guest's own page cache held would be lost. A target that leaves out the
// flush of the disk, with direct I/O say, would pass. So the disk is a process of its
// own to QEMU (the NBD protocol over a UNIX socket) and decides itself what is lost.
//
// Standards: the NBD protocol (fixed newstyle negotiation, simple replies), as its
// specification "doc/proto.md" states it; integers are big-endian.
package powerdisk
