// Package chap is the CHAP authentication of RFC 1994 as iSCSI carries it (RFC 7143
// §12.1.3), the target's side: the initiator proves that it knows a secret, and where
// it asks for it the target proves that it knows another one (mutual CHAP).
//
// The algorithms are MD5 (5, RFC 1994), SHA1 (6), SHA-256 (7) and SHA3-256 (8) by
// their numbers in IANA's registry of PPP authentication algorithms. There is no I/O
// here but for random numbers.
package chap
