// Package wire is the protocol of xenstore (docs/misc/xenstore.txt and
// xen/include/public/io/xs_wire.h of Xen 4.17) without I/O: message headers, payloads
// of strings, permissions and paths.
//
// A message is a header of 16 bytes, four 32-bit fields in the byte order of the
// machine, and a payload. Xen runs on little-endian machines only, so the fields are
// little-endian here.
package wire
