package vhost_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/loop"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost"
	"github.com/vtgt/vtgt/vhost/vring"
)

// childEnv holds a childConfig where the test binary is to be a daemon.
const childEnv = "VTGT_VHOST_TEST_CHILD"

type childConfig struct {
	Socket, Disk, State string
	Parks               bool
}

func TestMain(m *testing.M) {
	if s := os.Getenv(childEnv); s != "" {
		if err := child(s); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fuse ends the process, as kill -9 does, at the n-th time that a point of some name is
// reached.
type fuse struct {
	mu   sync.Mutex
	name string
	left int
}

// arm sets the fuse and says so, before anything can get to the point.
func (f *fuse) arm(name string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.left = name, n
	fmt.Println("armed")
}

// at is called at every point, by the thread that reaches it.
func (f *fuse) at(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.name != name {
		return
	}
	if f.left--; f.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it does not come here
	}
}

// child serves one disk on one socket until its standard input ends. Lines there arm
// the fuse, "name n", or change the size of the disk, "resize n".
func child(conf string) error {
	var c childConfig
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	f := &fuse{}
	g, err := loop.NewGroup(loop.Config{Loops: 2})
	if err != nil {
		return err
	}
	st, err := backing.Open("file:"+c.Disk, backing.Options{Group: g, LockWait: 30 * time.Second})
	if err != nil {
		return err
	}
	u, err := scsi.NewUnit(scsi.UnitConfig{Name: "disk", Vendor: "vtgt", Product: "disk", Revision: "1", Serial: "1",
		NAA: 0x3000_0000_0000_0001, Thin: true, Memory: &childMemory{c.State, f}}, &childStore{st, f})
	if err != nil {
		return err
	}
	tg := scsi.NewTarget(scsi.TargetConfig{Name: "t"})
	if err := tg.Map(0, u, scsi.MapOptions{}); err != nil {
		return err
	}
	vc := vhost.Config{Migratable: true, Name: "vm", Group: g, Initiator: [16]byte{1},
		Targets: []vhost.TargetPort{{ID: 0, Port: tg.NewPort(scsi.PortConfig{RelID: 1, Protocol: 4, Name: "t", DeviceName: "t"})}}}
	if c.Parks {
		if err := unpark(&vc); err != nil {
			return err
		}
	}
	e, err := vhost.NewExport(vhost.WithPoints(vc,
		func(queue int, p vring.Point) {
			f.at([...]string{"control-", "event-", ""}[min(queue, 2)] + p.String())
		}))
	if err != nil {
		return err
	}
	if err := os.Remove(c.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	go func() { _ = e.Serve(l) }()
	fmt.Println("ready")
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var name string
		var n int
		if _, err := fmt.Sscan(s.Text(), &name, &n); err != nil {
			return err
		}
		if name == "resize" {
			if err := u.Resize(int64(n), false); err != nil {
				return err
			}
			continue
		}
		f.arm(name, n)
	}
	return nil
}

// childMemory keeps records in files.
type childMemory struct {
	dir string
	f   *fuse
}

func (m *childMemory) Load(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (m *childMemory) Save(name string, b []byte) error {
	m.f.at("saving")
	defer m.f.at("saved")
	p := filepath.Join(m.dir, name)
	if b == nil {
		if err := os.Remove(p); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.WriteFile(p+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(p+".new", p)
}

// childStore has points around each operation that moves data.
type childStore struct {
	backing.Store
	f *fuse
}

func (s *childStore) Queue(l *loop.Loop) (backing.Queue, error) {
	q, err := s.Store.Queue(l)
	if err != nil {
		return nil, err
	}
	return &childQueue{q, s.f, map[*backing.Op]backing.OpOwner{}}, nil
}

// childQueue belongs to its loop.
type childQueue struct {
	backing.Queue
	f      *fuse
	owners map[*backing.Op]backing.OpOwner
}

func opName(op *backing.Op) string {
	switch op.Kind {
	case backing.Read:
		return "read"
	case backing.Write, backing.Zero, backing.Discard:
		return "write"
	}
	return "other"
}

func (q *childQueue) Submit(op *backing.Op) bool {
	q.f.at("before-" + opName(op))
	q.owners[op] = op.Owner
	op.Owner = q
	if !q.Queue.Submit(op) {
		return false
	}
	q.back(op)
	return true
}

// back gives op its owner again.
func (q *childQueue) back(op *backing.Op) {
	q.f.at("after-" + opName(op))
	op.Owner = q.owners[op]
	delete(q.owners, op)
}

// OpDone is the store's.
func (q *childQueue) OpDone(op *backing.Op) {
	q.back(op)
	op.Owner.OpDone(op)
}
