// Package iu is the wire codec of SRP, the SCSI RDMA Protocol (T10 SRP revision 16a):
// information units, data buffer descriptors, and the target's side of the login.
//
// It does no I/O. All numbers on the wire are big-endian; tags are opaque and go back
// byte for byte. What a peer sent is checked before it is used, and a decoder gives
// what it found as values that point into the caller's bytes: nothing is allocated.
package iu
