// Package proto encodes and decodes the messages of the vhost-user protocol (QEMU,
// docs/interop/vhost-user.rst), version 1, as both sides of a virtio-scsi device's
// socket use them. It does no I/O: descriptors travel beside a message as ancillary
// data, which are the caller's.
//
// All fields are in the machine's own byte order: both ends share memory.
package proto
