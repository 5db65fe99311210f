package backingtest

import "unsafe"

// alignOffset is how far the next multiple of 4096 is from the address of b.
func alignOffset(b []byte) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & 4095)
}
