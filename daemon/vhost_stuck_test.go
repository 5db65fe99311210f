package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/backing/backingtest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/vhost/vhosttest"
)

// TestVHostStuck: a store that hangs does not hold up the end for longer than its bound;
// what is stuck is counted, and the machine's memory is not written any more.
func TestVHostStuck(t *testing.T) {
	dir := t.TempDir()
	sock := filepath.Join(dir, "sock")
	var st *backingtest.Fault
	d, err := New("f.yaml", []byte(fmt.Sprintf("version: 1\ndisks: [{name: a, store: \"mem:\", size: 1MiB}]\ntargets: [{name: one, luns: [{lun: 0, disk: a}], vhost: {socket: %q}}]\nstate: %q\nloops: 1\n", sock, filepath.Join(dir, "state"))),
		Options{CloseTime: 2 * time.Second, Open: func(spec string, o backing.Options) (backing.Store, error) {
			s, err := backing.Open(spec, o)
			st = backingtest.NewFault(s)
			return st, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	c := guest(t, sock)
	q := c.Request(0)
	_ = reports(t, c, 0)
	for range 2 { // unit attentions
		if _, err := q.Exec(vhosttest.LUN(0, 0), []byte{0, 0, 0, 0, 0, 0}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	a, err := c.Mem.Alloc(512, 512)
	if err != nil {
		t.Fatal(err)
	}
	const mark = 0xa5
	for i := range c.Mem.At(a, 512) {
		c.Mem.At(a, 512)[i] = mark
	}
	st.Inject(backingtest.Rule{Hold: true, Deaf: true, Kinds: backingtest.KindSet(backing.Read)})
	r := &vhosttest.Request{LUN: vhosttest.LUN(0, 0), In: []vhosttest.Buf{{Addr: a, Len: 512}}}
	r.SetCDB(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0)
	if err := q.Submit(r); err != nil {
		t.Fatal(err)
	}
	q.Kick()
	if !st.WaitHeld(1) {
		t.Fatal("nothing is held")
	}
	if e := d.Exports()[0]; e.VHost.InFlight != 1 {
		t.Errorf("%+v", e.VHost)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Close() }()
	select {
	case err = <-ended:
	case <-time.After(tempotest.Patience):
		t.Fatal("it does not end")
	}
	if err == nil || !strings.Contains(err.Error(), "1 commands of its virtual machine did not leave the store") {
		t.Error(err)
	}
	if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the socket is left:", err)
	}
	if err := c.WaitClosed(); err != nil {
		t.Error(err)
	}
	// The read ends after all: not into memory that may be another one's by now.
	st.Clear()
	st.Release(-1)
	if !tempotest.Settles(func() bool { return d.Disks()[0].Stats.InFlight == 0 }) {
		t.Error("it does not end")
	}
	for _, b := range c.Mem.At(a, 512) {
		if b != mark {
			t.Fatal("the machine's memory was written after the end")
		}
	}
}
