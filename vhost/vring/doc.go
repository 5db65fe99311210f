// Package vring is the device's side of the virtqueue, split or packed (VIRTIO 1.2 §2.7, §2.8), in
// guest memory, without I/O: descriptor chains, used entries, suppression of
// notifications in both forms, and the record of requests in flight that outlives
// the process (vhost-user protocol, "Inflight I/O tracking").
//
// The driver is hostile. Each of its fields is read once, checked, then used; what
// breaks a rule is a [Violation] that says which, and fails the ring for good. All
// methods of a [Ring] belong to one goroutine, the ring's loop, and run under
// gmem.Guard: they touch memory that its owner can take away.
//
// Numbers in guest memory are little-endian (VERSION_1).
package vring
