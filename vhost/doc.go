// Package vhost is the front end for virtual machines under QEMU/KVM: the back end
// of the vhost-user protocol for virtio-scsi devices. Its virtqueues are package
// vring.
package vhost
