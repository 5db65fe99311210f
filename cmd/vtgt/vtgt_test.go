package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/internal/hosttest"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

const (
	testIQN  = "iqn.2026-11.org.vtgt:test"
	testHost = "iqn.2026-11.org.vtgt:test-host"
)

// binary is the program under test, built once. client is the same for commands that
// end at once: never with the race detector, which takes half a second to start.
var binary, client string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vtgt-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Chmod(dir, 0o755) // other users run it too
	binary = filepath.Join(dir, "vtgt")
	build := func(to, cgo string, more ...string) {
		args := append([]string{"build", "-trimpath", "-ldflags", "-X main.version=1.2.3-test", "-o", to}, more...)
		c := exec.Command("go", append(args, ".")...)
		c.Env = append(os.Environ(), cgo)
		if out, err := c.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			os.Exit(1)
		}
	}
	client = binary
	if raceDetector {
		client = filepath.Join(dir, "vtgt-client")
		build(client, "CGO_ENABLED=0")
		build(binary, "CGO_ENABLED=1", "-race")
	} else {
		build(binary, "CGO_ENABLED=0")
	}
	os.Chmod(binary, 0o755)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// world is a folder with a configuration for one daemon.
type world struct {
	t                         *testing.T
	dir, conf, socket, portal string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "vtgt-w-") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newWorldIn(t, dir)
}

func newWorldIn(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, conf: filepath.Join(dir, "vtgt.yaml"), socket: filepath.Join(dir, "api.sock")}
	w.portal = hosttest.Port(t).String()
	w.file("a.img", 64<<20)
	w.write(w.text("disks:\n  - {name: a, store: \"file:" + dir + "/a.img\"}\ntargets:\n  - name: t\n    luns: [{lun: 0, disk: a}]\n    iscsi: {iqn: \"" + testIQN + "\"}\n"))
	return w
}

func (w *world) text(body string) string {
	return fmt.Sprintf("version: 1\n%siscsi: {portals: [%q]}\napi: {socket: %q}\nstate: %q\n", body, w.portal, w.socket, filepath.Join(w.dir, "state"))
}

func (w *world) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.conf, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) replace(old, new string) {
	w.t.Helper()
	b, err := os.ReadFile(w.conf)
	if err != nil || !strings.Contains(string(b), old) {
		w.t.Fatalf("no %q in the configuration: %v", old, err)
	}
	w.write(strings.Replace(string(b), old, new, 1))
}

func (w *world) file(name string, size int64) string {
	w.t.Helper()
	p := filepath.Join(w.dir, name)
	if err := os.WriteFile(p, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Truncate(p, size); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// vtgt runs a command to its end.
func (w *world) vtgt(args ...string) (out, errOut string, code int) {
	return command(w.t, append([]string{"VTGT_SOCKET=" + w.socket}, os.Environ()...), client, args...)
}

func command(t *testing.T, env []string, name string, args ...string) (out, errOut string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*tempotest.Patience)
	defer cancel()
	c := exec.CommandContext(ctx, name, args...)
	c.Env = env
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

func (w *world) ok(args ...string) string {
	w.t.Helper()
	out, errOut, code := w.vtgt(args...)
	if code != 0 {
		w.t.Fatalf("vtgt %v: exit %d\n%s", args, code, errOut)
	}
	return out
}

// fails wants an exit code other than 0 and each of the texts on stderr.
func (w *world) fails(args []string, want ...string) {
	w.t.Helper()
	out, errOut, code := w.vtgt(args...)
	if code == 0 {
		w.t.Errorf("vtgt %v: exit 0\n%s", args, out)
	}
	for _, s := range want {
		if !strings.Contains(errOut, s) {
			w.t.Errorf("vtgt %v: no %q in\n%s", args, s, errOut)
		}
	}
	if strings.Contains(errOut, "goroutine ") || strings.Contains(errOut, "panic") {
		w.t.Errorf("vtgt %v: %s", args, errOut)
	}
}

// now are the arguments to serve without waiting for locks.
func (w *world) now() []string { return []string{"serve", "--config", w.conf, "--lock-wait", "0"} }

// server is a running vtgt serve.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	mu   sync.Mutex
	log  bytes.Buffer
}

func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// follow copies a stream and tells of a line that has the text.
func (s *server) follow(r io.Reader, text string) <-chan struct{} {
	seen := make(chan struct{})
	go func() {
		sc := bufio.NewScanner(r)
		for first := true; sc.Scan(); {
			s.mu.Lock()
			s.log.WriteString(sc.Text() + "\n")
			s.mu.Unlock()
			if first && strings.Contains(sc.Text(), text) {
				first = false
				close(seen)
			}
		}
	}()
	return seen
}

func (w *world) serve(args ...string) *server {
	w.t.Helper()
	if len(args) == 0 {
		args = []string{"serve", "--config", w.conf}
	}
	return start(w.t, nil, args...)
}

func start(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(binary, args...), done: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), env...)
	r, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = pw
	var out bytes.Buffer
	s.cmd.Stdout = &out
	ready := s.follow(r, "msg=ready")
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	go func() { s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-s.done
		r.Close()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", s.text())
		}
	})
	select {
	case <-ready:
	case <-s.done:
		time.Sleep(50 * time.Millisecond) // the rest of its log
		t.Fatalf("vtgt ended: %v\n%s", s.cmd.ProcessState, s.text())
	case <-time.After(tempotest.Patience):
		t.Fatalf("not ready\n%s", s.text())
	}
	return s
}

// stop sends SIGTERM and wants an orderly end: serve's own bound, daemon.CloseTime,
// would make it exit with another code.
func (s *server) stop() {
	s.t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(tempotest.Patience):
		s.t.Fatal("did not end after SIGTERM")
	}
	if c := s.cmd.ProcessState.ExitCode(); c != 0 {
		s.t.Errorf("exit code %d", c)
	}
}

func login(t *testing.T, portal, iqn string) *iscsitest.Conn {
	t.Helper()
	c, err := iscsitest.Dial(portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(iscsitest.Login{InitiatorName: testHost, TargetName: iqn}); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBadInput(t *testing.T) {
	w := newWorld(t)
	good, _ := os.ReadFile(w.conf)
	serve := w.now()
	check := []string{"check", "-f", w.conf}
	for _, tc := range []struct {
		name     string
		old, new string
		want     []string
		late     bool // found when served, not by check
	}{
		{name: "not YAML", old: "disks:", new: "disks: [", want: []string{w.conf + ":", "not YAML"}},
		{name: "unknown key", old: "targets:", new: "tragets:", want: []string{w.conf + ":4:1: unknown key \"tragets\"", "did you mean \"targets\"?"}},
		{name: "LUN twice", old: "[{lun: 0, disk: a}]", new: "[{lun: 0, disk: a}, {lun: 0, disk: a}]", want: []string{w.conf + ":6:", "target \"t\" has LUN 0 twice", "give each its own number"}},
		{name: "missing file", old: "a.img", new: "none.img", want: []string{w.conf + ":3:", "disk a", w.dir + "/none.img", "create: true"}},
		{name: "short file", old: "a.img\"", new: "a.img\", size: 65MiB", want: []string{w.conf + ":3:", "disk a", w.dir + "/a.img"}},
		{name: "a folder", old: "a.img", new: "", want: []string{w.conf + ":3:", "disk a", w.dir}},
		{name: "no such address", old: w.portal, new: "192.0.2.77:3260", want: []string{w.conf + ":", "portal 192.0.2.77:3260", "does not have the address"}, late: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := *w
			w.t = t
			w.write(string(good))
			w.replace(tc.old, tc.new)
			w.fails(serve, tc.want...)
			if tc.late {
				w.ok(check...)
			} else {
				w.fails(check, tc.want...)
			}
			for _, name := range []string{w.socket, filepath.Join(w.dir, "none.img")} {
				if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s was left: %v", name, err)
				}
			}
		})
	}
	w.write(string(good))
	if out := w.ok(check...); !strings.Contains(out, "ok: 1 disk, 1 target, 1 portal") {
		t.Errorf("%s", out)
	}
}

func TestPortInUse(t *testing.T) {
	w := newWorld(t)
	ln, err := net.Listen("tcp", w.portal)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(w.portal)
	w.fails(w.now(), "portal "+w.portal, "the port is in use by another program", "sport = :"+port)
	// The file was let go of.
	w.replace(w.portal, "127.0.0.1:0")
	w.serve().stop()
}

func TestUsage(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"serve"}, "add --config FILE"},
		{[]string{"check"}, "add -f FILE"},
		{[]string{"check", "-f", w.dir + "/none.yaml"}, "none.yaml: cannot read the configuration: no such file or directory"},
		{[]string{"sevre"}, "unknown command"},
		{[]string{"get"}, "disks, targets, exports, sessions"},
		{[]string{"get", "disk"}, "did you mean disks"},
		{[]string{"get", "disks", "-o", "xml"}, "unknown output format \"xml\": use table, json or yaml"},
		{[]string{"get", "disks"}, w.socket + ": no vtgt daemon is here: the socket does not exist; start one with"},
		{[]string{"apply", "-f", w.conf}, "no vtgt daemon is here"},
		{[]string{"serve", "--config", w.conf, "--log-level", "loud"}, "unknown log level"},
		{[]string{"serve", "--nonsense"}, "unknown flag: --nonsense"},
		{[]string{"run", "--size", "1G"}, "write 1GiB"},
	} {
		w.fails(tc.args, tc.want)
	}
	if out := w.ok("version"); !strings.HasPrefix(out, "vtgt 1.2.3-test (go") {
		t.Errorf("%q", out)
	}
	if out := w.ok("--version"); !strings.Contains(out, "1.2.3-test") {
		t.Errorf("%q", out)
	}
}

func TestServeGetApply(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	c := login(t, w.portal, testIQN)
	if r, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err != nil || r.Status > 2 {
		t.Fatalf("%+v %v", r, err)
	}

	if out := w.ok("get", "disks"); !strings.Contains(out, "64MiB") || !strings.HasPrefix(out, "NAME") || !strings.Contains(out, "t/0") {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "targets"); !strings.Contains(out, testIQN) {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "exports"); !strings.Contains(out, w.portal) {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "sessions"); !strings.Contains(out, testHost) || !strings.Contains(out, "HEADERDIGEST") {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "status"); !strings.Contains(out, "running") {
		t.Errorf("%s", out)
	}
	text, _ := os.ReadFile(w.conf)
	if out := w.ok("get", "config"); out != string(text) {
		t.Errorf("%s", out)
	}
	var ss []api.Session
	if err := json.Unmarshal([]byte(w.ok("get", "sessions", "-o", "json")), &ss); err != nil || len(ss) != 1 || ss[0].Params["DataDigest"] != "None" {
		t.Errorf("%+v %v", ss, err)
	}
	if out := w.ok("get", "disks", "-o", "yaml"); !strings.HasPrefix(out, "- name: a\n") {
		t.Errorf("%s", out)
	}

	// A second daemon: refused by the socket; with a socket of its own by the
	// state; with a state of its own by the port and the file, both named.
	w.fails(w.now(), "another vtgt answers there")
	w2 := *w
	w2.conf = filepath.Join(w.dir, "two.yaml")
	w2.write(strings.Replace(string(text), "api.sock", "api2.sock", 1))
	w2.fails(w2.now(), "another vtgt (process "+strconv.Itoa(s.cmd.Process.Pid)+") has this state folder")
	w2.replace("/state", "/state2")
	w2.fails(w2.now(), "disk a", w.dir+"/a.img", "in use", "portal "+w.portal)

	// apply
	w.replace("targets:", "  - {name: b, store: \"mem:\", size: 1MiB}\ntargets:")
	w.replace("{lun: 0, disk: a}", "{lun: 0, disk: a}, {lun: 7, disk: b}")
	out := w.ok("apply", "-f", w.conf, "--dry-run")
	if out != "+ disk b: mem:, 1MiB\n+ lun t/7: b\n2 changes; nothing was done (dry run)\n" {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "disks"); strings.Contains(out, "mem:") {
		t.Errorf("a dry run did it: %s", out)
	}
	if out := w.ok("apply", "-f", w.conf); !strings.Contains(out, "2 changes applied, revision 2") {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "targets"); !strings.Contains(out, "7    b") {
		t.Errorf("%s", out)
	}
	w.replace("{lun: 7, disk: b}", "{lun: 7, disk: c}")
	w.fails([]string{"apply", "-f", w.conf}, w.conf+":", "unknown disk \"c\"")
	w.replace("{lun: 7, disk: c}", "{lun: 7, disk: b}")
	w.replace("a.img\"", "a.img\", blockSize: 4096")
	w.fails([]string{"apply", "-f", w.conf}, "disk a: cannot change (blockSize 512 -> 4096) while initiators use it: "+testHost, "log them out")
	w.replace("a.img\", blockSize: 4096", "a.img\"")

	// SIGHUP reads the file again.
	w.replace("name: b, store: \"mem:\", size: 1MiB", "name: b, store: \"mem:\", size: 1MiB, shared: true")
	s.cmd.Process.Signal(syscall.SIGHUP)
	tempotest.Wait(t, "SIGHUP does something", func() bool { return strings.Contains(w.ok("get", "status"), "revision 3") })

	// SIGTERM with the session open.
	s.stop()
	if _, err := os.Lstat(w.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	w.serve() // and again, at once
}

func TestSecondSignal(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	login(t, w.portal, testIQN)
	s.cmd.Process.Signal(syscall.SIGINT)
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(tempotest.Patience):
		t.Fatal("still there")
	}
}

func TestKilled(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	s.cmd.Process.Kill()
	<-s.done
	if _, err := os.Lstat(w.socket); err != nil {
		t.Fatalf("%v", err)
	}
	w.fails([]string{"get", "disks"}, "the socket is left over from one that ended")
	w.serve() // takes the stale socket and the locks
	w.ok("get", "disks")
}

func TestNotify(t *testing.T) {
	w := newWorld(t)
	addr := filepath.Join(w.dir, "notify")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := start(t, []string{"NOTIFY_SOCKET=" + addr}, "serve", "--config", w.conf)
	s.stop()
	nc.SetReadDeadline(time.Now().Add(tempotest.Patience))
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		b := make([]byte, 1024)
		n, err := nc.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), want) {
			t.Errorf("%q %v, want %s", b[:n], err, want)
		}
	}
}

func TestJSONLog(t *testing.T) {
	w := newWorld(t)
	w.replace("a.img", "none.img")
	w.fails([]string{"serve", "--config", w.conf, "--log-format", "json"}, `"msg":"vtgt starts"`)
}

// nobody gives commands a user without rights, where the tests run as root.
func nobody(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		return func(*exec.Cmd) {}
	}
	as := func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	c := exec.Command("true")
	as(c)
	if err := c.Run(); errors.Is(err, os.ErrPermission) {
		t.Skip("this root has no CAP_SETUID and CAP_SETGID: nothing can be run as another user")
	} else if err != nil {
		t.Fatal(err)
	}
	return as
}

func TestUnprivileged(t *testing.T) {
	nobody := nobody(t)
	w := newWorldIn(t, hosttest.Public(t))
	// The program is to be where nobody may run it.
	program := filepath.Join(hosttest.Public(t), "vtgt")
	if err := os.Link(binary, program); err != nil {
		if err := copyFile(program, binary); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(w.dir, "a.img"), 0) // where the tests run as nobody, it is theirs
	os.Chmod(w.dir, 0o555)
	defer os.Chmod(w.dir, 0o755) // what is in it is to go
	os.Chmod(w.conf, 0o644)
	run := func(want ...string) {
		t.Helper()
		// What starts after all is ended, and has failed.
		ctx, cancel := context.WithTimeout(t.Context(), tempotest.Patience)
		defer cancel()
		c := exec.CommandContext(ctx, program, w.now()...)
		nobody(c)
		out, err := c.CombinedOutput()
		if err == nil || ctx.Err() != nil {
			t.Errorf("it runs: %v\n%s", err, out)
		}
		for _, s := range want {
			if !strings.Contains(string(out), s) {
				t.Errorf("no %q in\n%s", s, out)
			}
		}
	}
	run("api socket "+w.socket, "permission denied", "run as root, or name a path in a folder that you may write with api.socket")
	free := hosttest.Public(t)
	os.Chmod(free, 0o777)
	w.replace(w.socket, free+"/s")
	run("state "+w.dir+"/state", "permission denied", "run as root, or name a folder that you may write with the key state:")
	w.replace(w.dir+"/state", free+"/state")
	run("disk a", w.dir+"/a.img", "permission denied")
	if es, _ := os.ReadDir(free); len(es) != 1 { // the state folder
		t.Errorf("left: %v", es)
	}

	// make run needs no rights.
	s := start(t, nil, "run", "--dir", free+"/demo", "--size", "1MiB")
	s.stop()
	c := exec.Command(program, "run", "--dir", free+"/demo2", "--size", "1MiB")
	nobody(c)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		err = c.Wait()
		close(ended)
	}()
	tempotest.Settles(func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		_, _, code := command(t, []string{"VTGT_SOCKET=" + free + "/demo2/vtgt.sock"}, binary, "get", "status")
		return code == 0
	})
	c.Process.Signal(syscall.SIGTERM)
	if <-ended; err != nil || !strings.Contains(out.String(), "iscsiadm") {
		t.Errorf("%v\n%s%s", err, out.String(), errOut.String())
	}
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		return err
	}
	return os.Chmod(to, 0o755) // whatever the umask
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	busy, err := net.Listen("tcp", w.portal)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, port, _ := net.SplitHostPort(w.portal)
	dir := filepath.Join(w.dir, "demo")
	s := start(t, nil, "run", "--dir", dir, "--port", port, "--size", "8MiB")
	w.socket = filepath.Join(dir, "vtgt.sock")
	var es []api.Export
	if err := json.Unmarshal([]byte(w.ok("get", "exports", "-o", "json")), &es); err != nil || len(es) != 1 {
		t.Fatalf("%v %v", es, err)
	}
	if es[0].Addresses[0] == w.portal {
		t.Errorf("%+v", es)
	}
	login(t, es[0].Addresses[0], es[0].Name)
	fi, err := os.Stat(filepath.Join(dir, "disk.img"))
	if err != nil || fi.Size() != 8<<20 || fi.Sys().(*syscall.Stat_t).Blocks > 64 {
		t.Errorf("%+v %v", fi, err)
	}
	w.fails([]string{"run", "--dir", dir, "--port", port}, "another vtgt answers there")
	out := s.cmd.Stdout.(*bytes.Buffer)
	s.stop()
	for _, want := range []string{"qemu-system-x86_64", "qemu-img info iscsi://" + es[0].Addresses[0], "<source protocol='iscsi'", "iscsiadm -m discovery -t sendtargets -p " + es[0].Addresses[0], "export VTGT_SOCKET=" + w.socket} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestDocs(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(w.dir, "man")
	w.ok("docs", "man", dir)
	for _, f := range []string{"vtgt.1", "vtgt-serve.1", "vtgt-get-sessions.1"} {
		if b, err := os.ReadFile(filepath.Join(dir, f)); err != nil || !bytes.Contains(b, []byte(".SH EXAMPLE")) {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, sh := range []string{"bash", "zsh", "fish"} {
		if out := w.ok("completion", sh); len(out) < 1000 {
			t.Errorf("%s: %d bytes", sh, len(out))
		}
	}
}
