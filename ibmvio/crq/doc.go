// Package crq is the codec of IBM's virtual SCSI as PAPR partitions speak it: entries of
// the command/response queue (CRQ), management datagrams (MADs) and the LUN field of
// SRP units (PAPR+ §17.2.1, include/scsi/viosrp.h in Linux).
//
// It does no I/O. All numbers on the wire are big-endian; tags are opaque and go back
// byte for byte.
package crq
