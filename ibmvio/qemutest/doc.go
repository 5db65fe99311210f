// Package qemutest tests vtgt-vscsi, the PAPR (LoPAR 1.1 §17) virtual SCSI adapter that
// vtgt brings for QEMU (ibmvio/qemu): a pseries machine with a client of 300 bytes, and
// a server that does all that one may do.
package qemutest
