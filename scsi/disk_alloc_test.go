package scsi

import "testing"

// READ and WRITE allocate nothing, with one buffer and with several, nor do the
// commands in steps.
func TestDiskNoAllocations(t *testing.T) {
	st := newRigStore(1 << 20)
	st.quiet = true
	n := newRig(t, goldenConf(), st).nexus()
	data := make([]byte, 2048)
	for _, cdb := range []string{
		"28 00 00000000 00 0004 00", "2a 08 00000000 00 0004 00", "88 00 0000000000000000 00000004 00 00",
		"8a 00 0000000000000000 00000004 00 00", "08 00 00 00 04 00", "28 00 00000000 00 0003 00", "2a 00 00000000 00 0003 00",
		"28 08 00000000 00 0008 00", "2f 02 00000000 00 0004 00", "89 00 0000000000000000 00000002 00 00",
		"93 01 0000000000000000 00000004 00 00", "35 00 00000000 00 0000 00", "00 00 00 00 00 00",
	} {
		for _, piece := range []int{2048, 512} {
			c := &rigCall{}
			c.t.CDBLen = uint8(copy(c.t.CDB[:], unhex(t, cdb)))
			c.t.DataOut, c.t.DataIn = split2(data, piece), split2(make([]byte, 2048), piece)
			c.t.Ref = c
			var allocs float64
			n.l.Do(func() {
				allocs = testing.AllocsPerRun(200, func() {
					c.n = 1 // Done closes nothing
					n.ln.Submit(&c.t)
					n.ln.Kick()
				})
			})
			n.want(c, "good")
			if allocs != 0 {
				t.Errorf("%s in pieces of %d: %v allocations", cdb, piece, allocs)
			}
		}
	}
}

func BenchmarkDiskRead4K(b *testing.B) {
	st := newRigStore(1 << 20)
	st.quiet = true
	n := newRig(b, goldenConf(), st).nexus()
	c := &rigCall{}
	c.t.CDBLen = uint8(copy(c.t.CDB[:], []byte{0x28, 0, 0, 0, 0, 16, 0, 0, 8, 0}))
	c.t.DataIn = [][]byte{make([]byte, 4096)}
	c.t.Ref = c
	b.SetBytes(4096)
	n.l.Do(func() {
		b.ResetTimer()
		for range b.N {
			c.n = 1
			n.ln.Submit(&c.t)
			n.ln.Kick()
		}
	})
	n.want(c, "good")
}
