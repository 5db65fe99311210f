// Package vhosttest is a front end of the vhost-user protocol for tests and
// benchmarks: it plays QEMU and the virtio-scsi driver of a guest (VIRTIO 1.2 §5.6)
// against a socket, without a guest. Memory is a memfd, the rings are package
// vringtest's, the messages come in the order in which QEMU 7.2 or 10 sends them.
//
// It speaks the protocol by itself and uses nothing of package vhost, so that a
// mistake there meets no equal mistake here.
//
// A request costs no allocation: a [Request] is made once, filled, submitted and
// used again. What a test wants to do wrong it can: raw messages and descriptors by
// [Client.Send], raw ring memory by [Queue.Ring] and [Memory.At].
package vhosttest
