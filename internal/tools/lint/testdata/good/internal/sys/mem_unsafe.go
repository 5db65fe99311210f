package sys

import "unsafe"

const word = unsafe.Sizeof(uintptr(0))
