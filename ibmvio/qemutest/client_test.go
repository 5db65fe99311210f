package qemutest

import (
	"encoding/binary"
)

// The client is a program for a pseries machine without an operating system: it
// registers a queue, sends INIT, and sends every entry that it gets back, except those
// that tell it to do something.
const (
	unit       = 0x71000002
	ring       = 0x500000 // physical; I/O bus address 0
	ringLen    = 4096
	mapped     = 17     // pages from there on that are mapped, read and write
	readOnly   = mapped // one more, for the adapter to read
	unmapped   = mapped + 1
	holdOffset = 0x1ff8 // a held client goes on when this word is not 0
	beatOffset = 0x2000 // counts how often the client has looked at its queue

	doRegister = 0x8010 // free the queue, register it again, INIT
	doHold     = 0x8011 // look at nothing until the word at holdOffset is not 0
	doFree     = 0x8012 // free the queue and stop
	doFlood    = 0x8013 // send entries for ever, numbered from 1
	doChurn    = 0x8014 // free and register the queue for ever
)

// asm emits machine code of 64-bit PowerPC.
type asm struct {
	code   []uint32
	labels map[string]int
	jumps  map[int]string
}

func (a *asm) op(w uint32)       { a.code = append(a.code, w) }
func (a *asm) label(name string) { a.labels[name] = len(a.code) }
func (a *asm) d(op, rt, ra uint32, imm int32) {
	a.op(op<<26 | rt<<21 | ra<<16 | uint32(imm)&0xffff)
}

// li loads a 64-bit number.
func (a *asm) li(r uint32, v uint64) {
	a.d(15, r, 0, int32(v>>48)) // addis
	a.d(24, r, r, int32(v>>32)) // ori
	a.md(r, r, 32, 31, 1)       // sldi 32
	a.d(25, r, r, int32(v>>16)) // oris
	a.d(24, r, r, int32(v))     // ori
}

// md is rldicl (xo 0) and rldicr (xo 1).
func (a *asm) md(ra, rs, sh, m, xo uint32) {
	a.op(30<<26 | rs<<21 | ra<<16 | (sh&31)<<11 | (m&31)<<6 | (m>>5)<<5 | xo<<2 | (sh>>5)<<1)
}

func (a *asm) mr(ra, rs uint32) { a.d(24, rs, ra, 0) }

func (a *asm) jump(w uint32, to string) {
	a.jumps[len(a.code)] = to
	a.op(w)
}
func (a *asm) b(to string)   { a.jump(18<<26, to) }
func (a *asm) beq(to string) { a.jump(16<<26|12<<21|2<<16, to) }
func (a *asm) bne(to string) { a.jump(16<<26|4<<21|2<<16, to) }

// cmp compares r with a number of 16 bits, unsigned.
func (a *asm) cmp(r uint32, v int32) { a.d(10, 1, r, v) }

// hcall makes a hypercall; arguments are in r4 and up.
func (a *asm) hcall(op int32) {
	a.d(14, 3, 0, op)
	a.op(0x44000022) // sc 1
}

func (a *asm) bytes() []byte {
	for at, to := range a.jumps {
		d := uint32(a.labels[to]-at) * 4
		if a.code[at]>>26 == 18 {
			a.code[at] |= d & 0x03fffffc
		} else {
			a.code[at] |= d & 0xfffc
		}
	}
	var b []byte
	for _, w := range a.code {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// PAPR's numbers of hypercalls.
const (
	hPutTCE  = 0x20
	hRegCRQ  = 0xfc
	hFreeCRQ = 0x100
	hSendCRQ = 0x108
)

// program is the client as an ELF file.
func program() []byte {
	a := &asm{labels: map[string]int{}, jumps: map[int]string{}}
	// 64-bit mode.
	a.op(0x7c0000a6 | 20<<21) // mfmsr r20
	a.d(14, 21, 0, 1)
	a.md(21, 21, 63, 0, 1) // sldi 63
	a.op(0x7c000378 | 20<<21 | 20<<16 | 21<<11)
	a.op(0x7c000164 | 20<<21) // mtmsrd
	a.op(0x4c00012c)          // isync
	a.li(31, unit)
	a.li(29, ring)
	a.d(14, 25, 0, 0) // beats
	// TCEs.
	a.d(14, 22, 0, 0) // page
	a.label("tce")
	a.mr(4, 31)
	a.md(5, 22, 12, 51, 1) // sldi 12: the I/O bus address
	a.op(0x7c000214 | 6<<21 | 5<<16 | 29<<11)
	a.cmp(22, readOnly)
	a.beq("read only")
	a.d(24, 6, 6, 3)
	a.b("put")
	a.label("read only")
	a.d(24, 6, 6, 1)
	a.label("put")
	a.hcall(hPutTCE)
	a.d(14, 22, 22, 1)
	a.cmp(22, unmapped)
	a.bne("tce")

	a.label("register")
	a.d(14, 22, 0, 0)
	a.d(14, 0, 0, 0)
	a.label("clear")
	a.op(0x7c00012a | 0<<21 | 29<<16 | 22<<11) // stdx r0
	a.d(14, 22, 22, 8)
	a.cmp(22, ringLen)
	a.bne("clear")
	a.d(14, 30, 0, 0)
	a.mr(4, 31)
	a.d(14, 5, 0, 0)
	a.li(6, ringLen)
	a.hcall(hRegCRQ)
	a.li(23, 0xc001<<48)
	a.d(14, 24, 0, 0)

	a.label("send") // r23, r24
	a.mr(4, 31)
	a.mr(5, 23)
	a.mr(6, 24)
	a.hcall(hSendCRQ)
	a.cmp(3, 0)
	a.beq("look")
	a.cmp(3, 2) // H_CLOSED: again
	a.beq("send")
	a.label("stop")
	a.b("stop")

	a.label("look")
	a.d(14, 25, 25, 1)
	a.d(15, 26, 29, beatOffset>>16)
	a.d(62, 25, 26, beatOffset) // std r25
	a.op(0x7c000214 | 22<<21 | 29<<16 | 30<<11)
	a.d(34, 21, 22, 0) // lbz
	a.cmp(21, 0)
	a.beq("look")
	a.d(58, 23, 22, 0) // ld
	a.d(58, 24, 22, 8)
	a.d(14, 0, 0, 0)
	a.d(38, 0, 22, 0) // stb: the entry is free
	a.op(0x7c0004ac)  // sync
	a.d(14, 30, 30, 16)
	a.d(28, 30, 30, ringLen-1) // andi.
	a.md(21, 23, 16, 48, 0)    // srdi 48
	a.cmp(21, doRegister)
	a.beq("again")
	a.cmp(21, doHold)
	a.beq("hold")
	a.cmp(21, doFlood)
	a.beq("flood")
	a.cmp(21, doChurn)
	a.beq("churn")
	a.cmp(21, doFree)
	a.bne("send")
	a.mr(4, 31)
	a.hcall(hFreeCRQ)
	a.b("stop")
	a.label("again")
	a.mr(4, 31)
	a.hcall(hFreeCRQ)
	a.b("register")
	a.label("hold")
	a.d(58, 21, 29, holdOffset)
	a.cmp(21, 0)
	a.beq("hold")
	a.d(14, 0, 0, 0)
	a.d(62, 0, 29, holdOffset)
	a.b("look")

	a.label("flood")
	a.d(14, 24, 0, 1)
	a.label("flood one")
	a.mr(4, 31)
	a.mr(5, 23)
	a.mr(6, 24)
	a.hcall(hSendCRQ)
	a.cmp(3, 0)
	a.bne("flood one")
	a.d(14, 24, 24, 1)
	a.b("flood one")
	a.label("churn")
	a.mr(4, 31)
	a.hcall(hFreeCRQ)
	a.mr(4, 31)
	a.d(14, 5, 0, 0)
	a.li(6, ringLen)
	a.hcall(hRegCRQ)
	a.b("churn")

	code := a.bytes()
	const head = 64 + 56
	e := append([]byte("\x7fELF\x02\x02\x01"), make([]byte, 9)...)
	u16 := func(v uint16) { e = binary.BigEndian.AppendUint16(e, v) }
	u32 := func(v uint32) { e = binary.BigEndian.AppendUint32(e, v) }
	u64 := func(v uint64) { e = binary.BigEndian.AppendUint64(e, v) }
	u16(2)  // executable
	u16(21) // PowerPC, 64 bits
	u32(1)
	u64(0)
	u64(64)
	u64(0)
	u32(0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		u16(v)
	}
	u32(1) // load
	u32(7)
	for _, v := range []uint64{head, 0, 0, uint64(len(code)), uint64(len(code)), 4096} {
		u64(v)
	}
	return append(e, code...)
}
