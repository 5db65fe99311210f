// Package vringtest is the driver's side of a split virtqueue (VIRTIO 1.2 §2.7) in
// the same memory, for tests of package vring and of what stands on it.
package vringtest
