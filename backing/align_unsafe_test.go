package backing_test

import "unsafe"

func uintptrOf(b []byte) int { return int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
