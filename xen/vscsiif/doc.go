// Package vscsiif is the ring of Xen's paravirtual SCSI (xen/include/public/io/vscsiif.h
// and ring.h of Xen 4.17) as a back end has it: requests, responses and the indices of
// the page that it shares with a front end. It does no I/O.
//
// Whatever lies in the page is the front end's to change at any moment. A request is
// copied out once, each of its bytes, and looked at in the copy; an index is loaded
// once, checked, then used. Fields are little-endian: Xen runs on such machines only.
package vscsiif
