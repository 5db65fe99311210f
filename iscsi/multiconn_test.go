package iscsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
	"github.com/vtgt/vtgt/iscsi/pdu"
)

// rw is a READ (10) or WRITE (10) of 512-byte blocks.
func rw(op byte, lba uint32, n int) []byte {
	cdb := []byte{op, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(cdb[2:], lba)
	binary.BigEndian.PutUint16(cdb[7:], uint16(n))
	return cdb
}

// pattern is what round k writes to block area a.
func pattern(a, k, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		binary.BigEndian.PutUint64(b[i:], uint64(a)<<48|uint64(k)<<32|uint64(i))
	}
	return b
}

// TestSessionOfTwoConnections verifies data over two connections of one session, with
// data digests and CHAP on both, while one of them is cut and comes back.
func TestSessionOfTwoConnections(t *testing.T) {
	r := newRig(t, rigOptions{quiet: true})
	r.setAccess(&Access{CHAP: []chap.Account{mutual}, MaxConnections: 2})
	l := r.login()
	l.DataDigest, l.HeaderDigest = true, true
	l.CHAP = &iscsitest.CHAP{User: "alice", Secret: "alice-has-a-secret", Target: "disk", TargetSecret: "the-disk-has-another"}
	l.Keys = []pdu.KeyValue{{Key: "MaxConnections", Value: "2"}}
	dial := func() *iscsitest.Conn {
		c, err := iscsitest.Dial(r.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	one := dial()
	s, err := iscsitest.NewSession(one, l)
	if err != nil {
		t.Fatal(err)
	}
	if one.Keys["MaxConnections"] != "2" {
		t.Fatal("MaxConnections", one.Keys["MaxConnections"])
	}
	for range 4 { // unit attentions
		if k, err := one.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil {
			t.Fatal(err)
		} else if k.Status == 0 {
			break
		}
	}
	// A third is one too many, and a wrong secret joins nothing.
	if err := s.Add(dial(), 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(dial(), 2); err == nil {
		t.Fatal("a third connection")
	}
	wrong := l
	wrong.CHAP = &iscsitest.CHAP{User: "alice", Secret: "not-her-secret-1"}
	if err := s.AddLogin(dial(), 1, wrong); err == nil {
		t.Fatal("a wrong secret joins the session")
	}
	// Nor does somebody else, although the target would let them in.
	r.setAccess(&Access{CHAP: []chap.Account{mutual, oneWay}, MaxConnections: 2})
	wrong.CHAP = &iscsitest.CHAP{User: "guest", Secret: "guest-has-a-secret"}
	var le *iscsitest.LoginError
	if err := s.AddLogin(dial(), 1, wrong); !errors.As(err, &le) || le.Status != pdu.LoginCantIncludeInSession {
		t.Fatal("another user:", err)
	}

	const blocks, size = 40, 40 * 512
	work := func(c *iscsitest.Conn, area, k int) error {
		lba := uint32(area*4096 + k%8*blocks)
		w, err := c.Run(&iscsitest.Command{CDB: rw(0x2a, lba, blocks), Out: pattern(area, k, size)})
		if err != nil || w.Status != 0 {
			return fmt.Errorf("WRITE %d/%d: %v, status %#x", area, k, err, w.Status)
		}
		rd, err := c.Run(&iscsitest.Command{CDB: rw(0x28, lba, blocks), In: size})
		if err != nil || rd.Status != 0 || !bytes.Equal(rd.In, pattern(area, k, size)) {
			return fmt.Errorf("READ %d/%d: %v, status %#x", area, k, err, rd.Status)
		}
		return nil
	}
	for round := range 6 {
		two := s.Conns()[1]
		errs := make(chan error, 2)
		for i, c := range s.Conns() {
			go func() {
				for k := range 30 {
					if err := work(c, i, round*100+k); err != nil {
						errs <- err
						return
					}
				}
				errs <- nil
			}()
		}
		for range 2 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		// Commands under way on the second, none of them waited for.
		for k := range 12 {
			if _, err := two.Start(&iscsitest.Command{CDB: rw(0x2a, uint32(2*4096+k*blocks), blocks), Out: pattern(2, round*100+k, size)}); err != nil {
				t.Fatal(err)
			}
		}
		left, err := s.Cut(two, one)
		if err != nil {
			t.Fatal("cut:", err)
		}
		for _, cmd := range left {
			if k, err := one.Run(cmd); err != nil || k.Status != 0 {
				t.Fatalf("again: %v, status %#x, sense %x", err, k.Status, k.Sense)
			}
		}
		for k := range 12 {
			rd, err := one.Run(&iscsitest.Command{CDB: rw(0x28, uint32(2*4096+k*blocks), blocks), In: size})
			if err != nil || !bytes.Equal(rd.In, pattern(2, round*100+k, size)) {
				t.Fatalf("round %d, block %d: %v, what was written is not there", round, k, err)
			}
		}
		if err := s.Add(dial(), 1); err != nil {
			t.Fatal("and back:", err)
		}
	}
	if n := len(r.srv.Sessions()); n != 1 {
		t.Errorf("%d sessions", n)
	}
}
