#include "textflag.h"

// Lines are of 128 bytes: the second one for the same line does nothing.

// func lines(p uintptr, n int)
TEXT ·lines(SB), NOSPLIT, $0-16
	MOVD p+0(FP), R3
	MOVD n+8(FP), R4

next:
	DCBT (R3)
	ADD  $64, R3
	ADD  $-64, R4
	CMP  R4, $0
	BGT  next
	RET
