package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vtgt/vtgt/backing"
	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/internal/sys"
	"github.com/vtgt/vtgt/internal/unixsock"
	"github.com/vtgt/vtgt/iscsi"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/vhost"
)

// A daemon can be taken over by another process (vtgt serve --takeover), unseen by
// virtual machines:
//
//	new                                  old
//	hello: the version it speaks  ---->  the writer's lock is taken, so that nothing changes
//	                                     exports freeze, units are saved
//	                              <----  legacy: a block, and the descriptors
//	builds everything, frozen
//	ready                         ---->
//	                              <----  go: from here on it touches nothing, and ends
//	exports go on
//
// Until "go" the old process has everything, and any failure (the connection's end, a
// limit of time) has it go on; the new one has then done nothing that anybody sees.

// TakeoverSocket is the name of the socket in the state folder at which a daemon can be
// taken over.
const TakeoverSocket = "takeover.sock"

// The frames of a takeover.
const (
	frameHello handover.Kind = iota + 1
	frameRefusal
	frameLegacy
	frameReady
	frameGo
)

// legacyVersion is the version of the protocol and of the block. A change that the other
// side need not know leaves it alone: unknown keys are ignored.
const legacyVersion = 1

// Limits of time. Guests stand still from the first to the last step; Linux gives a
// command 30 s.
const (
	helloTime  = 5 * time.Second
	freezeTime = 8 * time.Second
	sendTime   = 5 * time.Second
	readyTime  = 12 * time.Second
)

// hello is what the new process says of itself.
type hello struct {
	Version int    `json:"version"`
	PID     int    `json:"pid"`
	Config  string `json:"config"` // the file that it was given
}

// refusal is why it cannot have what it wants.
type refusal struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// legacy is the block: everything that runs. Descriptors are numbers in the Set.
type legacy struct {
	Version int    `json:"version"`
	PID     int    `json:"pid"`
	File    string `json:"file"`
	Text    []byte `json:"text"` // the configuration in force
	Frozen  uint64 `json:"frozen"`
	// Lock is the state folder's, API the API's socket; OwnAPI: to be removed at
	// the end.
	Lock   int  `json:"lock"`
	API    int  `json:"api"`
	OwnAPI bool `json:"ownAPI"`
	// Inherited are sockets that systemd had bound.
	Inherited []int                 `json:"inherited"`
	Portals   map[string]int        `json:"portals"` // by address as configured
	Disks     map[string]legacyDisk `json:"disks"`
	Rings     map[string]legacyRing `json:"rings"` // by ringKey
	Sessions  []iscsi.SavedSession  `json:"sessions,omitempty"`
}

type legacyDisk struct {
	Store string          `json:"store"`
	Given backing.Given   `json:"given"`
	Unit  *scsi.SavedUnit `json:"unit"`
}

type legacyRing struct {
	Socket   string       `json:"socket"`
	Listener int          `json:"listener"`
	Own      bool         `json:"own"` // the socket is to be removed at the end
	VHost    *vhost.Saved `json:"vhost,omitempty"`
}

func ringKey(kind, target string) string { return kind + " " + target }

// API is the socket of a daemon's API, for ServeTakeovers.
type API struct {
	Listener syscall.Conn
	// Own: the path is to be removed when the API ends.
	Own bool
}

// Takeovers serves those who want to take a daemon over.
type Takeovers struct {
	d     *Daemon
	api   API
	taken func(pid int)
	sock  *unixsock.Socket
	done  chan struct{}
}

// ServeTakeovers begins to do so, at TakeoverSocket in the state folder. When the daemon
// has been taken over by process pid, taken is called: this process has to end, at once and
// without Close.
func (d *Daemon) ServeTakeovers(api API, taken func(pid int)) (*Takeovers, error) {
	path := filepath.Join(d.st.Path(), TakeoverSocket)
	sock, err := unixsock.Bind(path, unixsock.Access{Mode: 0o600, UID: -1, GID: -1}, true)
	if err == nil {
		if err = sock.Publish(); err != nil {
			_ = sock.Close()
		}
	}
	if err != nil {
		return nil, &Error{Code: CodeInternal, Object: "state " + path, Message: err.Error(), Err: err}
	}
	t := &Takeovers{d: d, api: api, taken: taken, sock: sock, done: make(chan struct{})}
	go t.serve()
	return t, nil
}

// Close ends it, after a takeover that is under way.
func (t *Takeovers) Close() {
	_ = t.sock.Close()
	<-t.done
}

func (t *Takeovers) serve() {
	defer close(t.done)
	for {
		nc, err := t.sock.Listener().AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.d.log.Error("takeover socket", "err", err)
			time.Sleep(time.Second)
			continue
		}
		c := handover.NewConn(nc)
		pid, err := t.d.handOver(c, t.api)
		if err != nil {
			t.d.log.Error("taking this vtgt over failed: it goes on", "by", pid, "err", err)
			_ = c.Close()
			continue
		}
		t.sock.Disown()
		t.taken(pid)
		// c stays open as long as the process: its end is this one's.
		return
	}
}

// handOver is one takeover. Without an error this daemon stands still for ever.
func (d *Daemon) handOver(c *handover.Conn, api API) (pid int, err error) {
	pid, uid, err := c.Peer()
	if err != nil {
		return 0, err
	}
	refuse := func(hint string, err error) error {
		b, _ := json.Marshal(refusal{err.Error(), hint})
		_ = c.Send(frameRefusal, b, nil, sendTime)
		return err
	}
	if uid != os.Geteuid() && uid != 0 {
		return pid, refuse("run it as the user of the vtgt that is to be taken over", fmt.Errorf("user %d may not take it over", uid))
	}
	kind, b, set, err := c.Recv(helloTime)
	if err != nil {
		return pid, err
	}
	set.Close()
	var h hello
	if kind != frameHello || json.Unmarshal(b, &h) != nil {
		return pid, errors.New("what connected is no vtgt")
	}
	if h.Version != legacyVersion {
		return pid, refuse("stop it and start the new one instead; sessions are set up again then", fmt.Errorf("vtgt speaks version %d of takeovers, and what runs version %d", h.Version, legacyVersion))
	}
	if h.Config != "" && h.Config != d.served {
		return pid, refuse("give that file with --config", fmt.Errorf("the vtgt that runs serves %s, not %s", d.served, h.Config))
	}
	for end := time.Now().Add(helloTime); !d.write.TryLock(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return pid, refuse("try again when it is applied", errors.New("a configuration is being applied"))
		}
	}
	if d.closed || d.closing.Load() {
		d.write.Unlock()
		return pid, refuse("start without --takeover", errors.New("it is about to end"))
	}
	thaw, err := d.pass(c, api)
	if err != nil {
		thaw()
		d.write.Unlock()
		return pid, refuse("look at its log; it goes on", err)
	}
	d.closed = true // and nothing gets d.write any more
	return pid, nil
}

// pass freezes the daemon, passes everything on and waits for the other process to be
// ready. thaw has it go on. d.write is held.
func (d *Daemon) pass(c *handover.Conn, api API) (thaw func(), err error) {
	set := &handover.Set{}
	defer set.Close()
	l := &legacy{
		Version: legacyVersion, PID: os.Getpid(), Frozen: sys.MonotonicMicroseconds(),
		Portals: map[string]int{}, Disks: map[string]legacyDisk{}, Rings: map[string]legacyRing{}, OwnAPI: api.Own,
	}
	thaw, err = d.freeze(l, set, time.Now().Add(freezeTime))
	if err != nil {
		return thaw, err
	}
	if l.API, err = set.AddConn(api.Listener); err != nil {
		return thaw, err
	}
	b, err := json.Marshal(l)
	if err != nil {
		return thaw, err
	}
	if err := c.Send(frameLegacy, b, set, sendTime); err != nil {
		return thaw, err
	}
	kind, _, none, err := c.Recv(readyTime)
	if errors.Is(err, io.EOF) {
		err = errors.New("the new process has ended before it was ready")
	}
	if err != nil {
		return thaw, err
	}
	none.Close()
	if kind != frameReady {
		return thaw, fmt.Errorf("the new process said %d instead of that it is ready", kind)
	}
	return thaw, c.Send(frameGo, nil, nil, sendTime)
}

// freeze brings everything to a halt and describes it in l.
func (d *Daemon) freeze(l *legacy, set *handover.Set, until time.Time) (thaw func(), err error) {
	var mu sync.Mutex
	var thaws []func()
	thaw = func() {
		for _, f := range thaws {
			f()
		}
	}
	core, ok := d.eng.(*core)
	if !ok {
		return thaw, errors.New("there is nothing to take over")
	}
	g := d.cur.Load()
	l.File, l.Text = d.served, g.text
	if l.Lock, err = set.Add(int(d.st.Lock().Fd())); err != nil {
		return thaw, err
	}
	for _, f := range core.files {
		i, err := set.Add(int(f.Fd()))
		if err != nil {
			return thaw, err
		}
		l.Inherited = append(l.Inherited, i)
	}
	for a, p := range g.portals {
		if l.Portals[a], err = addListener(set, p.(*portal).ln); err != nil {
			return thaw, err
		}
	}
	// What is known to fail fails before anybody stands still.
	for name, t := range g.targets {
		if t.exports[kindXen] != nil {
			return thaw, fmt.Errorf("target %s has an export to a Xen domain, which goes on over a restart but not over a takeover", name)
		}
	}
	for name, k := range g.disks {
		given, err := backing.HandOver(k.obj.(*unit).st, set.Add)
		if errors.Is(err, backing.ErrNotSupported) {
			return thaw, fmt.Errorf("disk %s (%s) lives in the memory of this process", name, k.cfg.Store)
		}
		if err != nil {
			return thaw, fmt.Errorf("disk %s: %w", name, err)
		}
		l.Disks[name] = legacyDisk{Store: k.cfg.Store, Given: given}
	}
	var bad []error
	var wg sync.WaitGroup
	thaws = append(thaws, core.srv.Thaw)
	for _, t := range g.targets {
		for kind, x := range t.exports {
			r, ok := x.obj.(*ringExport)
			if !ok {
				continue
			}
			wg.Go(func() {
				lr, undo, err := r.freeze(set, until)
				mu.Lock()
				defer mu.Unlock()
				if undo != nil {
					thaws = append(thaws, undo)
				}
				if err != nil {
					bad = append(bad, err)
					return
				}
				l.Rings[ringKey(kind, t.cfg.Name)] = lr
			})
		}
	}
	wg.Go(func() {
		ss, err := core.srv.Freeze(until, set)
		mu.Lock()
		defer mu.Unlock()
		if l.Sessions = ss; err != nil {
			bad = append(bad, err)
		}
	})
	wg.Wait()
	if err := errors.Join(bad...); err != nil {
		return thaw, err
	}
	for _, name := range slices.Sorted(maps.Keys(g.disks)) {
		k := l.Disks[name]
		if k.Unit, err = g.disks[name].obj.(*unit).u.Save(); err != nil {
			return thaw, err
		}
		l.Disks[name] = k
	}
	return thaw, nil
}

func addListener(set *handover.Set, l net.Listener) (int, error) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return handover.None, fmt.Errorf("the listener at %s has no descriptor", l.Addr())
	}
	return set.AddConn(c)
}

// freeze brings the export to a halt. undo, where there is one, has it go on.
func (x *ringExport) freeze(set *handover.Set, until time.Time) (l legacyRing, undo func(), err error) {
	x.mu.Lock()
	e, spec := x.e, x.spec
	x.mu.Unlock()
	l = legacyRing{Socket: spec.socket, Own: x.sock != nil}
	if l.Listener, err = set.AddConn(x.ln); err != nil {
		return l, nil, err
	}
	if v, ok := e.(vhostServer); ok {
		if l.VHost, err = v.Freeze(until, set); err == nil {
			undo = v.Thaw
		}
	}
	return l, undo, err
}
