package iscsi

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// tight is an initiator that allocates nothing: rounds of depth commands of n bytes
// each in one write, and their answers in large reads.
type tight struct {
	nc       net.Conn
	cmdSN    uint32
	statSN   uint32
	out, in  []byte
	cmds     []*pdu.BHS
	write    bool
	n, depth int
}

func newTight(r *rig, n, depth int, write bool) *tight {
	r.t.Helper()
	l := r.login()
	l.Keys = []pdu.KeyValue{{Key: "FirstBurstLength", Value: "262144"}, {Key: "MaxBurstLength", Value: "1048576"}}
	c := r.dial(l)
	k := &tight{nc: c.NetConn(), cmdSN: c.CmdSN, statSN: c.ExpStatSN, write: write, n: n, depth: depth}
	size := pdu.BHSLen
	if write {
		size += n
	}
	k.out = make([]byte, depth*size)
	for i := range depth {
		h := (*pdu.BHS)(k.out[i*size:])
		h.Reset(pdu.OpSCSICommand)
		h.SetFinal(true)
		h.SetAttr(pdu.AttrSimple)
		h.SetITT(uint32(i + 1))
		h.SetExpectedDataTransferLength(uint32(n))
		if write {
			h.SetWrite(true)
			h.SetCDB(rw10(0x2a, uint32(i*n/512), n/512))
			h.SetDataSegmentLength(n)
		} else {
			h.SetRead(true)
			h.SetCDB(rw10(0x28, uint32(i*n/512), n/512))
		}
		k.cmds = append(k.cmds, h)
	}
	answer := pdu.BHSLen
	if !write {
		answer = n + pdu.BHSLen*((n+maxPDUData-1)/maxPDUData)
	}
	k.in = make([]byte, depth*answer)
	return k
}

func (k *tight) round() error {
	for _, h := range k.cmds {
		h.SetCmdSN(k.cmdSN)
		h.SetExpStatSN(k.statSN)
		k.cmdSN++
	}
	k.statSN += uint32(k.depth)
	if _, err := k.nc.Write(k.out); err != nil {
		return err
	}
	if _, err := io.ReadFull(k.nc, k.in); err != nil {
		return err
	}
	h := (*pdu.BHS)(k.in)
	if want := pdu.OpDataIn; !k.write && h.Opcode() != want || k.write && h.Opcode() != pdu.OpSCSIResponse || k.n <= maxPDUData && h.Status() != 0 {
		return fmt.Errorf("answer %v, status %#02x", h, h.Status())
	}
	return nil
}

func allocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// TestNoAllocations: a command costs no allocation, in steady state.
func TestNoAllocations(t *testing.T) {
	r := newRig(t, rigOptions{loops: 1, quiet: true})
	for _, write := range []bool{false, true} {
		for _, n := range []int{4096, 128 << 10} {
			k := newTight(r, n, 16, write)
			k.nc.SetDeadline(time.Now().Add(tempotest.Patience))
			rounds := 4000
			if n > 4096 {
				rounds = 400
			}
			var used uint64
			for i := range rounds + rounds/10 {
				if i == rounds/10 {
					runtime.GC()
					used = allocs()
				}
				if err := k.round(); err != nil {
					t.Fatal(err)
				}
			}
			used = allocs() - used
			t.Logf("write %v, %d bytes: %d allocations in %d commands", write, n, used, rounds*16)
			if used > uint64(rounds*16/50+200) { // the runtime makes some when the machine is busy
				t.Errorf("write %v, %d bytes: %d allocations in %d commands", write, n, used, rounds*16)
			}
			k.nc.Close()
		}
	}
}

// BenchmarkLoopback reports the processor time of both sides; cpu/op of the server
// alone is about half of it, see srvcpu-ns/op: the loops' own threads.
func BenchmarkLoopback(b *testing.B) {
	for _, c := range []struct {
		name  string
		n     int
		depth int
		write bool
	}{
		{"read4k/1", 4096, 1, false}, {"read4k/32", 4096, 32, false}, {"write4k/32", 4096, 32, true},
		{"read1m/4", 1 << 20, 4, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, rigOptions{loops: 1, quiet: true, spec: "null:"})
			k := newTight(r, c.n, c.depth, c.write)
			var ru0, ru1 syscall.Rusage
			var t0, t1 time.Duration
			r.group.Loops()[0].Do(func() { t0 = threadTime() })
			syscall.Getrusage(syscall.RUSAGE_SELF, &ru0)
			ops := 0
			b.SetBytes(int64(c.n))
			b.ResetTimer()
			for ops < b.N {
				if err := k.round(); err != nil {
					b.Fatal(err)
				}
				ops += c.depth
			}
			b.StopTimer()
			r.group.Loops()[0].Do(func() { t1 = threadTime() })
			syscall.Getrusage(syscall.RUSAGE_SELF, &ru1)
			cpu := ru1.Utime.Nano() + ru1.Stime.Nano() - ru0.Utime.Nano() - ru0.Stime.Nano()
			b.ReportMetric(float64(cpu)/float64(ops), "cpu-ns/op")
			b.ReportMetric(float64(t1-t0)/float64(ops), "srvcpu-ns/op")
			k.nc.Close()
			r.close()
		})
	}
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(1, &ru) // RUSAGE_THREAD
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
