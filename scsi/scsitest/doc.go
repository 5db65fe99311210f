// Package scsitest drives the SCSI command core (SAM-5) without a transport: an
// in-memory front end and initiator on real loops, and a soak that mixes
// everything that loops must agree about. Front ends and stores run it in their
// tests.
package scsitest
