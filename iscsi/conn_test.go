package iscsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

func rw10(op byte, lba uint32, blocks int) []byte {
	b := []byte{op, 0, 0, 0, 0, 0, 0, byte(blocks >> 8), byte(blocks), 0}
	binary.BigEndian.PutUint32(b[2:], lba)
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestReadWrite(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	for _, hd := range []bool{false, true} {
		for _, dd := range []bool{false, true} {
			for i, kv := range [][]pdu.KeyValue{
				nil,
				{{Key: "InitialR2T", Value: "Yes"}},
				{{Key: "ImmediateData", Value: "No"}},
				{{Key: "InitialR2T", Value: "Yes"}, {Key: "ImmediateData", Value: "No"}, {Key: "MaxOutstandingR2T", Value: "4"}, {Key: "MaxBurstLength", Value: "65536"}},
				{{Key: "MaxRecvDataSegmentLength", Value: "517"}, {Key: "FirstBurstLength", Value: "1024"}, {Key: "MaxBurstLength", Value: "2000"}},
				{{Key: "MaxRecvDataSegmentLength", Value: "8388608"}, {Key: "MaxBurstLength", Value: "16776192"}},
			} {
				t.Run(fmt.Sprint(hd, dd, i), func(t *testing.T) {
					l := r.login()
					l.HeaderDigest, l.DataDigest, l.Keys = hd, dd, kv
					c := r.dial(l)
					defer c.Close()
					for _, n := range []int{1, 7, 8, 128, 511, 513, 1024, 5000} {
						data := random(n * 512)
						k, err := c.Run(&iscsitest.Command{CDB: rw10(0x2a, 3, n), Out: data})
						if err != nil || k.Status != 0 || k.Residual != 0 {
							t.Fatalf("WRITE of %d: %v %+v", n, err, k)
						}
						k, err = c.Run(&iscsitest.Command{CDB: rw10(0x28, 3, n), In: len(data)})
						if err != nil || k.Status != 0 || !k.PhaseCollapse || !bytes.Equal(k.In, data) {
							t.Fatalf("READ of %d: %v", n, err)
						}
					}
					is := r.srv.Sessions()
					if len(is) != 1 || is[0].HeaderDigest != hd || is[0].DataDigest != dd || is[0].Traffic.Commands < 16 {
						t.Fatalf("%+v", is)
					}
					if p, err := c.Logout(pdu.LogoutCloseSession, 0); err != nil || p != pdu.LogoutSuccess {
						t.Fatal(p, err)
					}
					if err := c.Closed(c.Timeout); err != nil {
						t.Fatal(err)
					}
					tempotest.Wait(t, "session ends", func() bool { return len(r.srv.Sessions()) == 0 })
				})
			}
		}
	}
}

func TestHostile(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	iscsitest.Hostile(t, &iscsitest.Target{
		Dial:  func() (*iscsitest.Conn, error) { return iscsitest.Dial(r.addr()) },
		Login: r.login(),
	})
}
