// Package scsi is vtgt's SCSI command core: targets, ports, nexuses, lanes, logical
// units with their task sets, and device servers (SAM-5, SPC-4, SBC-3).
//
// It is the first waist of the house: every front end (iSCSI, vhost-user-scsi,
// Xen, IBM vio) drives this package and none of them knows a command. Outcomes
// are values (status and sense data), never Go errors.
package scsi
