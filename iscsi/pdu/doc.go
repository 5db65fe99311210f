// Package pdu holds the wire formats of iSCSI (RFC 7143 §11): the 48-byte basic
// header segment with accessors for every kind of PDU, additional header segments,
// digests, key=value text, and serial-number arithmetic. It does no I/O.
//
// All fields are big-endian as RFC 7143 §11.1 says, but for the digests, which stand
// on the wire with their least significant byte first (§13.1 with annex A.4's
// examples). Accessors read and write the header in place; nothing is allocated and
// nothing is checked: a value is what the peer sent, and the caller judges it.
package pdu
