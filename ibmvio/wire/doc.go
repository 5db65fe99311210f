// Package wire is the codec of the protocol between vtgt and its QEMU device vtgt-vscsi,
// version 1.0 (ibmvio/qemu/PROTOCOL.md): what a PAPR hypervisor does for a VSCSI server,
// as frames on a stream. It does no I/O. All numbers on the wire are big-endian.
//
// Both sides are here: vtgt reads what the device sends and makes requests; tests play
// the device.
package wire
