// Package virtioscsi is the codec of the virtio SCSI host device (VIRTIO 1.2 §5.6):
// the headers on its control, event and request queues, the LUN field, feature bits
// and the limits of its configuration space. It does no I/O and touches no guest
// memory: headers are gathered and scattered by their users.
//
// Numbers are little-endian (VERSION_1). A header is a byte array of the standard's
// size with its fields as methods; sense data and CDB have their default sizes, which
// vhost-user front ends do not let the driver change.
package virtioscsi
