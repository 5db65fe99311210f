package vring_test

import "unsafe"

// inside tells whether b lies within whole.
func inside(whole, b []byte) bool {
	lo := uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return p >= lo && p-lo <= uintptr(len(whole)) && uintptr(len(b)) <= uintptr(len(whole))-(p-lo)
}
