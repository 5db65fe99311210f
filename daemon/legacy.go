package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/unixsock"
	"github.com/vtgt/vtgt/iscsi"
	"github.com/vtgt/vtgt/vhost"
)

// Legacy is what a daemon gets from the one whose place it takes: see takeover.go. A nil
// one is nothing.
type Legacy struct {
	c   *handover.Conn
	l   legacy
	set *handover.Set
}

// TakeOver asks the daemon that has the state folder for everything; file is the
// configuration file that it must serve. It stands still until New has ended, or Close.
func TakeOver(stateDir, file string) (*Legacy, error) {
	object := "state " + stateDir
	c, err := dialTakeover(stateDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, &Error{Code: CodeNotFound, Object: object, Message: "no vtgt runs that can be taken over", Hint: "start without --takeover", Err: err}
	}
	if err != nil {
		return nil, &Error{Code: CodeInternal, Object: object, Message: "the vtgt that runs cannot be reached: " + err.Error(), Hint: "run as its user", Err: err}
	}
	t, err := takeOver(c, file)
	if err != nil {
		_ = c.Close()
		var e *Error
		if !errors.As(err, &e) {
			err = &Error{Code: CodeInternal, Object: object, Message: "it was not handed over: " + err.Error(), Hint: "look at the log of the vtgt that runs; it goes on", Err: err}
		}
		return nil, err
	}
	return t, nil
}

// dialTakeover connects by the folder's descriptor: its path may be longer than an address
// holds.
func dialTakeover(stateDir string) (*handover.Conn, error) {
	dir, err := os.Open(stateDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), TakeoverSocket)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return handover.NewConn(c), nil
}

func takeOver(c *handover.Conn, file string) (*Legacy, error) {
	b, err := json.Marshal(hello{Version: legacyVersion, PID: os.Getpid(), Config: file})
	if err != nil {
		return nil, err
	}
	if err := c.Send(frameHello, b, nil, sendTime); err != nil {
		return nil, err
	}
	kind, b, set, err := c.Recv(helloTime + freezeTime + sendTime)
	if err != nil {
		return nil, err
	}
	t := &Legacy{c: c, set: set}
	switch kind {
	case frameLegacy:
		err = json.Unmarshal(b, &t.l)
	case frameRefusal:
		var r refusal
		if err = json.Unmarshal(b, &r); err == nil {
			err = &Error{Code: CodeBusy, Object: "takeover", Message: r.Message, Hint: r.Hint}
		}
	default:
		err = fmt.Errorf("a frame of kind %d came", kind)
	}
	if err == nil && t.l.Version != legacyVersion {
		err = fmt.Errorf("its version is %d", t.l.Version)
	}
	if err != nil {
		set.Close()
		return nil, err
	}
	return t, nil
}

// Text is the configuration that was in force, File where it stands.
func (t *Legacy) Text() []byte { return t.l.Text }

// File is the configuration file.
func (t *Legacy) File() string { return t.l.File }

// API is the API's listener at path, and what removes it from there in the end, nil where
// that is not ours to do.
func (t *Legacy) API(path string) (net.Listener, *unixsock.Socket, error) {
	ln, err := t.unixListener(t.l.API)
	if err != nil {
		return nil, nil, err
	}
	if !t.l.OwnAPI {
		return ln, nil, nil
	}
	return ln, unixsock.Adopt(path, ln), nil
}

// Close gives back what was not taken; the process before goes on, unless New has
// succeeded.
func (t *Legacy) Close() {
	if t != nil {
		t.set.Close()
		_ = t.c.Close()
	}
}

func (t *Legacy) file(i int, name string) (*os.File, error) {
	fd, err := t.set.Take(i)
	if err != nil {
		return nil, err
	}
	if fd < 0 {
		return nil, errors.New("there is no descriptor")
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (t *Legacy) listener(i int) (net.Listener, error) {
	f, err := t.file(i, "listener")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

func (t *Legacy) unixListener(i int) (*net.UnixListener, error) {
	ln, err := t.listener(i)
	if err != nil {
		return nil, err
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		_ = ln.Close()
		return nil, errors.New("it is no UNIX socket")
	}
	return u, nil
}

// inherited are the sockets of systemd.
func (t *Legacy) inherited() (out []*os.File) {
	if t == nil {
		return nil
	}
	for _, i := range t.l.Inherited {
		if f, err := t.file(i, "inherited"); err == nil {
			out = append(out, f)
		}
	}
	return out
}

// state is the state folder.
func (t *Legacy) state(path string) (*state.Dir, error) {
	f, err := t.file(t.l.Lock, "lock")
	if err != nil {
		return nil, err
	}
	return state.Adopt(path, f)
}

// portal is the listener of a portal; nil: there is none.
func (t *Legacy) portal(addr string) net.Listener {
	if t == nil {
		return nil
	}
	i, ok := t.l.Portals[addr]
	if !ok {
		return nil
	}
	delete(t.l.Portals, addr)
	ln, err := t.listener(i)
	if err != nil {
		return nil
	}
	return ln
}

// disk has o open what the process before has open.
func (t *Legacy) disk(d *config.Disk, o *backing.Options) (*legacyDisk, error) {
	if t == nil {
		return nil, nil
	}
	k, ok := t.l.Disks[d.Name]
	if !ok || k.Store != d.Store {
		return nil, nil
	}
	delete(t.l.Disks, d.Name)
	if k.Given.FD == handover.None {
		return &k, nil
	}
	g := backing.Given{Latched: k.Given.Latched, Witness: -1}
	var err error
	if g.FD, err = t.set.Take(k.Given.FD); err == nil {
		g.Witness, err = t.set.Take(k.Given.Witness)
	}
	o.Given = &g
	return &k, err
}

// ring is an export to a virtual machine; nil: there was none.
func (t *Legacy) ring(s *ringSpec) *legacyRing {
	if t == nil {
		return nil
	}
	key := ringKey(s.kind, s.target)
	r, ok := t.l.Rings[key]
	if !ok || r.Socket != s.socket {
		return nil
	}
	delete(t.l.Rings, key)
	return &r
}

// frozen is what the vhost-user export of a target goes on from.
func (r *legacyRing) frozen(t *Legacy) (*vhost.Saved, *handover.Set) {
	if r == nil || r.VHost == nil {
		return nil, nil
	}
	return r.VHost, t.set
}

// sessions are those of the target with that iSCSI name.
func (t *Legacy) sessions(name string) (out []*iscsi.SavedSession) {
	if t == nil {
		return nil
	}
	for i := range t.l.Sessions {
		if t.l.Sessions[i].Target == name {
			out = append(out, &t.l.Sessions[i])
		}
	}
	return out
}

// commit is when nothing is left that may fail: from here on the process before is none.
func (t *Legacy) commit() error {
	if t == nil {
		return nil
	}
	err := t.c.Send(frameReady, nil, nil, sendTime)
	if err == nil {
		var kind handover.Kind
		var set *handover.Set
		if kind, _, set, err = t.c.Recv(readyTime); err == nil {
			set.Close()
			if kind != frameGo {
				err = fmt.Errorf("a frame of kind %d came", kind)
			}
		}
	}
	if err != nil {
		return Errors{{Code: CodeTimeout, Object: "takeover", Message: "the vtgt that runs has not let go: " + err.Error(), Hint: "look at its log; it goes on", Err: err}}
	}
	return nil
}

// pause is how long virtual machines have stood still.
func (t *Legacy) pause() time.Duration {
	return time.Duration(sys.MonotonicMicroseconds()-t.l.Frozen) * time.Microsecond
}
