package guesttest

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/vtgt/vtgt/internal/guest/ledger"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

// fenceIQN is a target with a disk that two hosts of a cluster share.
const fenceIQN = crashIQN + ".fence"

// fence is what two hosts know of their registrations and their reservation with APTPL:
// what was acknowledged has to be there after every crash.
type fence struct {
	n    uint64 // of the youngest key
	keys [2]uint64
	typ  byte
	// late is a key that the second host was registering when it happened; 0: none.
	late uint64
}

// fenceConnect logs host in to the fence target and clears its unit attentions.
func fenceConnect(addr string, host int) (*iscsitest.Conn, error) {
	c, err := iscsitest.Dial(addr)
	if err != nil {
		return nil, err
	}
	c.Timeout = patience
	err = c.Login(iscsitest.Login{InitiatorName: fmt.Sprintf("%s.host%d", initiatorName, host), TargetName: fenceIQN, ISID: [6]byte{0x80, 5: byte(host)}})
	if err == nil {
		err = ledger.Clear(c, 0)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// prout runs a PERSISTENT RESERVE OUT with APTPL (SPC-4 §6.16).
func prout(c *iscsitest.Conn, sa, typ byte, key, saKey uint64) error {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], saKey)
	list[20] = 1
	r, err := c.Run(&iscsitest.Command{CDB: []byte{0x5f, sa, typ, 0, 0, 0, 0, 0, 24, 0}, Out: list})
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("PERSISTENT RESERVE OUT, service action %d: status %#x, sense % x", sa, r.Status, r.Sense)
	}
	return err
}

func (f *fence) next() uint64 {
	f.n++
	return f.n
}

// act has both hosts register new keys, and the first reserve with another type.
func (f *fence) act(addr string) error {
	const registerIgnore, reserve, release = 6, 1, 2
	for host := range f.keys {
		c, err := fenceConnect(addr, host)
		if err != nil {
			return err
		}
		k := f.next()
		if err = prout(c, registerIgnore, 0, 0, k); err == nil {
			f.keys[host] = k
		}
		if host == 0 && err == nil {
			if f.typ != 0 {
				err = prout(c, release, f.typ, k, 0)
			}
			types := []byte{1, 3, 5, 6}
			typ := types[(slices.Index(types, f.typ)+1)%len(types)]
			f.typ = 0
			if err == nil {
				err = prout(c, reserve, typ, k, 0)
			}
			if err == nil {
				f.typ = typ
			}
		}
		_ = c.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// during has the second host register once more while it happens; done is closed when
// it has its answer or none will come.
func (f *fence) during(addr string) (done chan struct{}, err error) {
	c, err := fenceConnect(addr, 1)
	if err != nil {
		return nil, err
	}
	f.late = f.next()
	done = make(chan struct{})
	go func() {
		defer close(done)
		defer c.Close()
		_ = prout(c, 6, 0, 0, f.late)
	}()
	return done, nil
}

// check wants what was acknowledged, and the third host fenced.
func (f *fence) check(addr string) error {
	c, err := fenceConnect(addr, 2)
	if err != nil {
		return err
	}
	defer c.Close()
	in := func(sa byte) ([]byte, error) {
		r, err := c.Run(&iscsitest.Command{CDB: []byte{0x5e, sa, 0, 0, 0, 0, 0, 1, 0, 0}, In: 256})
		if err == nil && (r.Status != 0 || len(r.In) < 8) {
			err = fmt.Errorf("PERSISTENT RESERVE IN, service action %d: status %#x, %d bytes", sa, r.Status, len(r.In))
		}
		if err != nil {
			return nil, err
		}
		if g := binary.BigEndian.Uint32(r.In); g != 0 {
			return nil, fmt.Errorf("PRGENERATION %d after power on", g)
		}
		return r.In[8:], nil
	}
	b, err := in(0)
	if err != nil {
		return err
	}
	var keys []uint64
	for ; len(b) >= 8; b = b[8:] {
		keys = append(keys, binary.BigEndian.Uint64(b))
	}
	if f.late != 0 && len(keys) == 2 && keys[1] == f.late {
		f.keys[1] = f.late // it was done, although nobody heard of it
	}
	f.late = 0
	if !slices.Equal(keys, f.keys[:]) {
		return fmt.Errorf("the keys %x are registered, %x were acknowledged", keys, f.keys)
	}
	if b, err = in(1); err != nil {
		return err
	}
	if len(b) != 16 || binary.BigEndian.Uint64(b) != f.keys[0] || b[13] != f.typ {
		return fmt.Errorf("reserved: % x; type %d with key %x was acknowledged", b, f.typ, f.keys[0])
	}
	w, err := c.Run(&iscsitest.Command{CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Out: make([]byte, 512)})
	if err != nil {
		return err
	}
	if w.Status != 0x18 { // RESERVATION CONFLICT
		return fmt.Errorf("a host that is not registered writes: status %#x", w.Status)
	}
	return nil
}

// ok ends the test where a host could not do what it had to.
func (f *fence) ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal("fence:", err)
	}
}
