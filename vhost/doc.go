// Package vhost is the front end for virtual machines under QEMU/KVM: the back end
// of the vhost-user protocol for virtio-scsi devices (vhost-user.rst; VIRTIO 1.2 §5.6).
//
// An [Export] outlives the connections to it. Below it are two halves that meet in
// virtqueue: the session, an ordinary goroutine that takes the front end's messages
// and may wait, and the rings, each on a loop, which may not.
//
// A ring's loop takes entries in batches, has package srp run them, and at the end of
// its round writes all responses, shows them by one store and signals once. It touches
// guest memory only in steps under gmem.Guard; what the core calls (Respond, Event)
// queues. A ring that breaks a rule, or whose memory is gone, fails alone.
package vhost
