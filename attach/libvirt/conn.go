package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	lv "github.com/digitalocean/go-libvirt"
)

// DefaultURI is the libvirt that is meant where none is named: the system's for root,
// the user's own for others, as virsh does it.
func DefaultURI() string {
	if s := os.Getenv("LIBVIRT_DEFAULT_URI"); s != "" {
		return s
	}
	if os.Geteuid() == 0 {
		return string(lv.QEMUSystem)
	}
	return string(lv.QEMUSession)
}

// callTime bounds one call to libvirt: it may wait for QEMU's monitor, which a machine
// that swaps holds up.
const callTime = 2 * time.Minute

// conn is a connection to libvirt. Its methods may be called from any goroutine.
type conn struct {
	l   *lv.Libvirt
	uri string
	// nc is the connection to a daemon on this host, nil to one elsewhere.
	nc net.Conn
	// local: domains run on this host.
	local bool
	once  sync.Once
}

// keepDialer keeps what it dialled, so that a call can be given up.
type keepDialer struct {
	paths []string
	nc    net.Conn
}

func (d *keepDialer) Dial() (net.Conn, error) {
	var first error
	for _, p := range d.paths {
		nc, err := net.DialTimeout("unix", p, callTime)
		if err == nil {
			d.nc = nc
			return nc, nil
		}
		if first == nil || errors.Is(first, fs.ErrNotExist) {
			first = err
		}
	}
	return nil, first
}

// sockets are where the daemon of a local URI listens: the modular one, and the one for
// everything.
func sockets(u *url.URL) []string {
	if s := u.Query().Get("socket"); s != "" {
		return []string{s}
	}
	dir := "/run/libvirt"
	if strings.Trim(u.Path, "/") == "session" {
		run := os.Getenv("XDG_RUNTIME_DIR")
		if run == "" {
			run = fmt.Sprintf("/run/user/%d", os.Geteuid())
		}
		dir = filepath.Join(run, "libvirt")
	}
	return []string{filepath.Join(dir, "virtqemud-sock"), filepath.Join(dir, "libvirt-sock")}
}

// dial connects to the libvirt at uri.
func dial(ctx context.Context, uri string) (*conn, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("libvirt %s: is not a URI; write one such as qemu:///system (--connect)", uri)
	}
	driver, transport, _ := strings.Cut(u.Scheme, "+")
	if driver != "qemu" {
		return nil, fmt.Errorf("libvirt %s: only the driver qemu is served, not %s; for Xen use: vtgt attach xen", uri, driver)
	}
	c := &conn{uri: uri, local: u.Host == "" && (transport == "" || transport == "unix")}
	err = limit(ctx, callTime, func() {}, func() error {
		if !c.local {
			l, err := lv.ConnectToURI(u)
			c.l = l
			return err
		}
		d := &keepDialer{paths: sockets(u)}
		l := lv.NewWithDialer(d)
		if err := l.ConnectToURI(lv.RemoteURI(u)); err != nil {
			return err
		}
		c.l, c.nc = l, d.nc
		return nil
	})
	if err == nil {
		return c, nil
	}
	hint := "is it running, and is the URI right (--connect, LIBVIRT_DEFAULT_URI)?"
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		hint = "start it (systemctl start virtqemud.socket or libvirtd.socket), or name another one with --connect"
	case errors.Is(err, fs.ErrPermission):
		hint = "run as root or as a member of the group libvirt, or use your own with --connect qemu:///session"
	}
	return nil, fmt.Errorf("libvirt %s: no connection: %w; %s", uri, err, hint)
}

// limit runs f for d at most: its calls have neither context nor timeout. stop has f end
// where it can.
func limit(ctx context.Context, d time.Duration, stop func(), f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		stop()
		return ctx.Err()
	}
}

// errGone: the connection is lost, by its other end or because a call took too long.
var errGone = errors.New("libvirt does not answer any more; is it still running? Then try again: what was begun is in the journal")

// do runs one call. A call that takes too long costs the connection.
func (c *conn) do(ctx context.Context, what string, f func(l *lv.Libvirt) error) error {
	err := limit(ctx, callTime, c.cut, func() error { return f(c.l) })
	if err == nil {
		return nil
	}
	var le lv.Error
	if !errors.As(err, &le) {
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return fmt.Errorf("%s: %w (%v)", what, errGone, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// cut ends the connection at once; calls under way fail.
func (c *conn) cut() {
	if c.nc != nil {
		_ = c.nc.Close()
	}
}

// close ends the connection.
func (c *conn) close() {
	c.once.Do(func() {
		_ = limit(context.Background(), 5*time.Second, c.cut, c.l.Disconnect)
		c.cut()
	})
}

// is tells an error of libvirt by its number.
func is(err error, n lv.ErrorNumber) bool {
	var le lv.Error
	return errors.As(err, &le) && le.Code == uint32(n)
}

// peer is the user that a libvirt daemon on this host runs as, -1 where that cannot be
// told.
func (c *conn) peer() int {
	u, ok := c.nc.(*net.UnixConn)
	if !ok {
		return -1
	}
	uid := -1
	if rc, err := u.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
				uid = int(cred.Uid)
			}
		})
	}
	return uid
}
