// Package evtchn is event channels of Xen as /dev/xen/evtchn offers them
// (include/uapi/xen/evtchn.h of Linux): a bell between two domains.
//
// A Channel has a descriptor of its own, so that each device's ring is a source of its
// own on a loop.
package evtchn
