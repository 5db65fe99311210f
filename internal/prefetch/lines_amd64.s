#include "textflag.h"

// func lines(p uintptr, n int)
TEXT ·lines(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ n+8(FP), CX

four:
	CMPQ CX, $256
	JLT  one
	PREFETCHT1 (AX)
	PREFETCHT1 64(AX)
	PREFETCHT1 128(AX)
	PREFETCHT1 192(AX)
	ADDQ $256, AX
	SUBQ $256, CX
	JMP  four

one:
	CMPQ CX, $0
	JLE  done
	PREFETCHT1 (AX)
	ADDQ $64, AX
	SUBQ $64, CX
	JMP  one

done:
	RET
