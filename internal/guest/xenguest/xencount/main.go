package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// Records: a word with the event in the low 28 bits, the number of further words in the
// next three, and in the last one whether 8 bytes of time follow; then those words.
const (
	eventMask  = 1<<28 - 1
	cpuChange  = 0x0001f003 // its first word is the processor of what follows
	hypercall  = 0x0020100d // in its first word the number, in the low 20 bits; then arguments
	subcall    = 0x0020100e // the same, in a multicall
	lost       = 0x0001f001
	numberMask = 1<<20 - 1
)

// Numbers of hypercalls and of grant operations (xen/include/public/xen.h, grant_table.h).
const (
	grantTableOp   = 20
	iret           = 23
	schedOp        = 29
	eventChannelOp = 32

	grantMap   = 0
	grantUnmap = 1
	grantCopy  = 5
)

// Counts is what the trace has.
type Counts struct {
	Hypercalls, Events, Irets, Sched, GrantCalls uint64
	GrantMaps, GrantUnmaps, GrantCopies          uint64
	Lost                                         bool // the trace has gaps
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: xencount FILE CPU")
		os.Exit(2)
	}
	b, err := os.ReadFile(os.Args[1])
	cpu, cerr := strconv.ParseUint(os.Args[2], 10, 32)
	if err != nil || cerr != nil {
		fmt.Fprintln(os.Stderr, "xencount:", err, cerr)
		os.Exit(1)
	}
	c := count(b, uint32(cpu))
	_ = json.NewEncoder(os.Stdout).Encode(c)
}

// count reads the records in b.
func count(b []byte, want uint32) (c Counts) {
	le := binary.LittleEndian
	cpu := uint32(0)
	for len(b) >= 4 {
		w := le.Uint32(b)
		n := 4 + int(w>>28&7)*4
		at := 4
		if w>>31 != 0 {
			n, at = n+8, at+8
		}
		if len(b) < n {
			break
		}
		arg := func(i int) uint32 {
			if at+4*i+4 > n {
				return 0
			}
			return le.Uint32(b[at+4*i:])
		}
		switch w & eventMask {
		case cpuChange:
			cpu = arg(0)
		case lost:
			c.Lost = true
		case hypercall, subcall:
			if cpu == want {
				c.add(arg(0)&numberMask, arg(1), arg(2))
			}
		}
		b = b[n:]
	}
	return c
}

// add counts a hypercall; cmd and k are a grant operation and how often it is done.
func (c *Counts) add(number, cmd, k uint32) {
	c.Hypercalls++
	switch number {
	case eventChannelOp:
		c.Events++
	case iret:
		c.Irets++
	case schedOp:
		c.Sched++
	case grantTableOp:
		c.GrantCalls++
		switch cmd {
		case grantMap:
			c.GrantMaps += uint64(k)
		case grantUnmap:
			c.GrantUnmaps += uint64(k)
		case grantCopy:
			c.GrantCopies += uint64(k)
		}
	}
}
