// Package xen is a back end of Xen's paravirtual SCSI (xen/include/public/io/vscsiif.h
// of Xen 4.17) in user space: it serves xen-scsifront of mainline Linux.
//
// A ring is served on a loop: its event channel is a source there, requests go through
// srp.Port, data by grant copy or, from a size on, by mapped grants.
package xen
