package main

import (
	"bufio"
	"bytes"
	"context"
	be "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
	"github.com/vtgt/vtgt/iscsi/iscsitest"
)

func (w *world) client() *api.Client {
	c := api.NewClient(w.socket)
	w.t.Cleanup(c.Close)
	return c
}

// conf reads the configuration file.
func (w *world) config() string {
	w.t.Helper()
	b, err := os.ReadFile(w.conf)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// scsi runs a command and gives its data, or its sense (key<<16 | ASC and ASCQ).
func command1(t *testing.T, c *iscsitest.Conn, cmd iscsitest.Command) (in []byte, sense int) {
	t.Helper()
	r, err := c.Run(&cmd)
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == 0 {
		return r.In, 0
	}
	key, asc := iscsitest.Sense(r.Sense)
	return nil, int(key)<<16 | int(asc)
}

// settle reads unit attentions away.
func settle(t *testing.T, c *iscsitest.Conn, lun uint16) {
	t.Helper()
	for range 5 {
		if _, s := command1(t, c, iscsitest.Command{LUN: lun, CDB: make([]byte, 6)}); s == 0 {
			return
		}
	}
	t.Fatal("not ready")
}

func luns(t *testing.T, c *iscsitest.Conn) (out []int) {
	t.Helper()
	b, s := command1(t, c, iscsitest.Command{CDB: []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, In: 256})
	if s != 0 {
		t.Fatalf("REPORT LUNS: %06x", s)
	}
	for i := 8; i+8 <= len(b) && i < 8+int(be.BigEndian.Uint32(b)); i += 8 {
		out = append(out, int(be.BigEndian.Uint16(b[i:])&0x3fff))
	}
	return out
}

var readCapacity = []byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func TestLive(t *testing.T) {
	w := newWorld(t)
	w.replace("targets:", "# The only target.\ntargets:")
	begun := w.config()
	s := w.serve()
	c := login(t, w.portal, testIQN)
	settle(t, c, 0)

	// A disk and a LUN more: the session is told and sees it.
	out := w.ok("disk", "add", "b", "--store", "file:"+w.dir+"/b.img", "--size", "1MiB", "--create")
	if out != "+ disk b: file:"+w.dir+"/b.img, 1MiB\n1 change applied, revision 2\n" {
		t.Errorf("%s", out)
	}
	if out := w.ok("lun", "add", "t", "b"); !strings.Contains(out, "+ lun t/1: b\n") {
		t.Errorf("%s", out)
	}
	want := strings.Replace(strings.Replace(begun, "# The only", "  - {name: b, store: \"file:"+w.dir+"/b.img\", size: 1MiB, create: true}\n# The only", 1),
		"[{lun: 0, disk: a}]", "[{lun: 0, disk: a}, {lun: 1, disk: b}]", 1)
	if got := w.config(); got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	if _, sense := command1(t, c, iscsitest.Command{CDB: make([]byte, 6)}); sense != 0x63f0e {
		t.Errorf("sense %06x, want REPORTED LUNS DATA HAS CHANGED", sense)
	}
	if ls := luns(t, c); !slices.Equal(ls, []int{0, 1}) {
		t.Errorf("LUNs %v", ls)
	}
	settle(t, c, 1)

	// It grows.
	w.ok("disk", "set", "b", "--size", "2MiB")
	if _, sense := command1(t, c, iscsitest.Command{LUN: 1, CDB: make([]byte, 6)}); sense != 0x62a09 {
		t.Errorf("sense %06x, want CAPACITY DATA HAS CHANGED", sense)
	}
	if b, _ := command1(t, c, iscsitest.Command{LUN: 1, CDB: readCapacity, In: 8}); !bytes.Equal(b, []byte{0, 0, 0x0f, 0xff, 0, 0, 2, 0}) {
		t.Errorf("capacity %x", b)
	}
	w.fails([]string{"disk", "set", "b", "--size", "1MiB"}, "disk b: has 2MiB: to cut it to 1MiB would lose what lies behind", "--force")
	w.ok("disk", "set", "b", "--size", "1MiB", "--force")
	settle(t, c, 1)
	if b, _ := command1(t, c, iscsitest.Command{LUN: 1, CDB: readCapacity, In: 8}); !bytes.Equal(b, []byte{0, 0, 0x07, 0xff, 0, 0, 2, 0}) {
		t.Errorf("capacity %x", b)
	}
	// The file itself grows: vtgt notices.
	if err := os.Truncate(w.dir+"/b.img", 4<<20); err != nil {
		t.Fatal(err)
	}
	if !tempotest.Settles(func() bool {
		b, _ := command1(t, c, iscsitest.Command{LUN: 1, CDB: readCapacity, In: 8})
		return bytes.Equal(b, []byte{0, 0, 0x1f, 0xff, 0, 0, 2, 0})
	}) {
		t.Error("the file grew, nobody noticed")
	}

	// Read-only and back, with the session open.
	block := bytes.Repeat([]byte{7}, 512)
	write := iscsitest.Command{LUN: 1, CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0}, Out: block}
	settle(t, c, 1)
	for _, step := range []struct {
		args  []string
		sense int
	}{
		{[]string{"disk", "set", "b", "--read-only"}, 0x72700},
		{[]string{"disk", "set", "b", "--read-only=false"}, 0},
		{[]string{"lun", "set", "t", "1", "--read-only"}, 0x72700},
		{[]string{"lun", "set", "t", "1", "--read-only=false"}, 0},
	} {
		w.ok(step.args...)
		var sense int
		for range 3 {
			if _, sense = command1(t, c, write); sense>>16 != 6 {
				break
			}
		}
		if sense != step.sense {
			t.Errorf("%v: sense %06x, want %06x", step.args, sense, step.sense)
		}
	}
	w.ok("disk", "set", "b", "--shared", "--on-error", "stop")
	if out := w.ok("get", "disks", "-o", "json"); !strings.Contains(out, `"onError": "stop"`) {
		t.Errorf("%s", out)
	}

	// In use: refused, and by whom.
	me := testHost + ",i,0x"
	w.fails([]string{"disk", "rm", "b"}, "disk b: is in use: it is LUN 1 of target t, used by "+me, " from 127.0.0.1:", "(session ", "vtgt lun rm")
	w.fails([]string{"lun", "rm", "t", "1"}, "lun t/1: is in use by "+me, "--force")
	w.fails([]string{"target", "rm", "t"}, "target t: is in use by "+me)
	w.fails([]string{"portal", "rm", w.portal}, "portal "+w.portal)
	if ls := luns(t, c); !slices.Equal(ls, []int{0, 1}) {
		t.Errorf("LUNs %v", ls)
	}
	w.ok("disk", "rm", "b", "--force")
	if _, sense := command1(t, c, iscsitest.Command{CDB: make([]byte, 6)}); sense != 0x63f0e {
		t.Errorf("sense %06x, want REPORTED LUNS DATA HAS CHANGED", sense)
	}
	if ls := luns(t, c); !slices.Equal(ls, []int{0}) {
		t.Errorf("LUNs %v", ls)
	}
	// Again: it is not there, which is what was wanted.
	for _, args := range [][]string{{"disk", "rm", "b"}, {"lun", "rm", "t", "1"}, {"lun", "rm", "nobody", "1"}, {"target", "rm", "nobody"}, {"portal", "rm", "127.0.0.9:1"}} {
		if out := w.ok(args...); !strings.Contains(out, "is not there: nothing to do") {
			t.Errorf("%v: %s", args, out)
		}
	}
	if got := w.config(); got != begun {
		t.Errorf("the file is\n%s\nwas\n%s", got, begun)
	}

	// A target and a portal more and less.
	w.ok("target", "add", "u", "--iqn", testIQN+"2", "--alias", "Two words")
	w.ok("portal", "add", "127.0.0.2:0")
	if out := w.ok("get", "exports"); !strings.Contains(out, testIQN+"2") || !strings.Contains(out, "127.0.0.2:") {
		t.Errorf("%s", out)
	}
	login(t, w.portal, testIQN+"2").Close()
	w.fails([]string{"target", "add", "u", "--iqn", testIQN + "3"}, "target u: is there already")
	w.fails([]string{"target", "add", "v", "--iqn", "nonsense"}, "target v: ", "is not an iSCSI name")
	w.fails([]string{"lun", "set", "t", "9", "--read-only"}, "lun t/9: is not there")
	w.fails([]string{"lun", "add", "t", "nothing"}, `lun t/1: target "t": LUN 1 is the unknown disk "nothing"`)
	w.fails([]string{"disk", "add", "x"}, "add --store")
	w.fails([]string{"disk", "add", "x", "--store", "file:" + w.dir + "/none.img"}, "disk x", "none.img", "create: true")
	w.fails([]string{"disk", "set", "a", "--cache", "none"}, `disk a: "none" is not a cache mode`)
	w.ok("target", "rm", "u")
	w.ok("portal", "rm", "127.0.0.2:0")

	// Earlier configurations are kept.
	if out := w.ok("get", "history"); strings.Count(out, "\n") < 10 {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "config", "--revision", "1"); out != begun {
		t.Errorf("%s", out)
	}
	w.fails([]string{"get", "config", "--revision", "999"}, "revision 999 is not kept")
	if out := w.ok("get", "events"); !strings.Contains(out, "add    disk b") || !strings.Contains(out, "state  disk b: size 1MiB -> 2MiB") || !strings.Contains(out, "remove lun t/1") {
		t.Errorf("%s", out)
	}
	settle(t, c, 0)

	// The revision survives a restart.
	var st, st2 api.Status
	json.Unmarshal([]byte(w.ok("get", "status", "-o", "json")), &st)
	s.stop()
	w.serve()
	json.Unmarshal([]byte(w.ok("get", "status", "-o", "json")), &st2)
	// What room the machine's disk has left is told, too, where it is little.
	out = w.ok("get", "events")
	if strings.Count(out, "\n")-strings.Count(out, ": low on room:") != 1 || !strings.Contains(out, "sync") {
		t.Errorf("%s", out)
	}
	if st.Revision < 10 || st2.Revision != st.Revision {
		t.Errorf("revision %d, after a restart %d", st.Revision, st2.Revision)
	}
}

// Clients that change things at the same time lose nothing.
func TestWriters(t *testing.T) {
	w := newWorld(t)
	w.serve()
	const writers, each = 8, 6
	// Without revisions: each change stands.
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			c := w.client()
			ctx, cancel := context.WithTimeout(context.Background(), 2*tempotest.Patience)
			defer cancel()
			for j := range each {
				name := fmt.Sprintf("d%d-%d", i, j)
				if _, err := c.Edit(ctx, api.EditRequest{Ops: []api.EditOp{{Action: config.Add, Kind: "disk", Name: name, Values: map[string]any{"store": "null:", "size": "1MiB"}}}}); err != nil {
					t.Error(err)
				}
				if j%3 == 2 {
					if _, err := c.Edit(ctx, api.EditRequest{Ops: []api.EditOp{{Action: config.Remove, Kind: "disk", Name: name}}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	ds, err := w.client().Disks(t.Context())
	if err != nil || len(ds) != 1+writers*each*2/3 {
		t.Errorf("%d disks, %v", len(ds), err)
	}
	if c, err := config.Load(w.conf); err != nil || len(c.Disks) != len(ds) {
		t.Errorf("%v", err)
	}

	// Read, change, write back, each on what it has read: a counter in a serial.
	var conflicts int
	var mu sync.Mutex
	for range writers {
		wg.Go(func() {
			c := w.client()
			ctx, cancel := context.WithTimeout(context.Background(), 2*tempotest.Patience)
			defer cancel()
			for done := 0; done < each; {
				ds, err := c.Disks(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				i := slices.IndexFunc(ds, func(d api.Disk) bool { return d.Name == "d0-0" })
				var n int
				fmt.Sscanf(ds[i].Serial, "count%d", &n)
				_, err = c.Edit(ctx, api.EditRequest{Revision: ds[i].Revision, Ops: []api.EditOp{{Action: config.Modify, Kind: "disk", Name: "d0-0", Values: map[string]any{"serial": fmt.Sprintf("count%d", n+1)}}}})
				var e *api.Error
				switch {
				case err == nil:
					done++
				case errors.As(err, &e) && e.Code == daemon.CodeConflict && e.Status == 409 && e.Object == "disk d0-0" && e.Hint != "":
					mu.Lock()
					conflicts++
					mu.Unlock()
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	c, err := config.Load(w.conf)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Disk("d0-0").Serial; got != fmt.Sprintf("count%d", writers*each) {
		t.Errorf("%s, want count%d (%d conflicts)", got, writers*each, conflicts)
	}
	t.Logf("%d conflicts", conflicts)
	w.fails([]string{"disk", "set", "a", "--read-only", "--if-revision", "77"}, "disk a: is at revision 1, not 77: somebody changed it")
}

// Changes that could not be kept are not made.
func TestUnwritable(t *testing.T) {
	w := newWorld(t)
	w.serve()
	begun := w.config()

	// Edited by hand, not applied: an edit must not lose that.
	w.write(begun + "# by hand\n")
	w.fails([]string{"disk", "add", "m", "--store", "mem:", "--size", "1MiB"}, "file "+w.conf+": holds another configuration than the one in force", "vtgt apply -f "+w.conf)
	w.ok("apply", "-f", w.conf)
	w.ok("disk", "add", "m", "--store", "mem:", "--size", "1MiB")
	if !strings.HasSuffix(w.config(), "# by hand\n") {
		t.Errorf("%s", w.config())
	}

	// Another file: the served one takes its text, what it had is kept.
	other := filepath.Join(w.dir, "other.yaml")
	os.WriteFile(other, []byte(begun+"# other\n"), 0o600)
	w.ok("apply", "-f", other, "--dry-run")
	if strings.Contains(w.config(), "# other") {
		t.Error("a dry run saved")
	}
	if _, note, _ := w.vtgt("apply", "-f", other); !strings.Contains(note, w.conf+" has this configuration now") {
		t.Errorf("%s", note)
	}
	if w.config() != begun+"# other\n" {
		t.Errorf("%s", w.config())
	}
	if fi, err := os.Stat(w.conf); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi, err)
	}
	if _, note, code := w.vtgt("apply", "-f", "-", "--no-save"); code == 0 {
		t.Errorf("an empty configuration: %s", note)
	}
	os.WriteFile(other, []byte(begun+"# third\n"), 0o600)
	w.ok("apply", "-f", other, "--no-save")
	if w.config() != begun+"# other\n" {
		t.Errorf("%s", w.config())
	}
	w.fails([]string{"disk", "rm", "m", "--if-revision", "1"}) // not there any more: the revision says so

	// Back to an earlier one.
	var st api.Status
	json.Unmarshal([]byte(w.ok("get", "status", "-o", "json")), &st)

	// A folder in which nothing can be made: by a mount where we are root.
	if os.Getuid() == 0 {
		if err := syscall.Mount(w.conf, w.conf, "", syscall.MS_BIND, ""); err != nil {
			t.Log("no bind mount here:", err)
			return
		}
		defer syscall.Unmount(w.conf, syscall.MNT_DETACH)
	} else if err := os.Chmod(w.dir, 0o500); err != nil {
		t.Fatal(err)
	} else {
		defer os.Chmod(w.dir, 0o700)
	}
	w.ok("apply", "-f", w.conf) // nothing to write
	w.fails([]string{"disk", "add", "m", "--store", "mem:", "--size", "1MiB"}, "file "+w.conf+": the configuration file cannot be ", "nothing was changed")
	w.fails([]string{"apply", "-f", other}, "the configuration file cannot be ", "--no-save")
	w.ok("apply", "-f", other, "--no-save")
	if es, _ := filepath.Glob(w.dir + "/.*"); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
	if out := w.ok("get", "disks"); strings.Contains(out, "mem:") {
		t.Errorf("%s", out)
	}
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	ctx, cancel := context.WithTimeout(context.Background(), 2*tempotest.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "get", "events", "--follow", "-o", "json")
	cmd.Env = append(os.Environ(), "VTGT_SOCKET="+w.socket)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	r, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(r)
	next := func() (e api.Event) {
		t.Helper()
		if !sc.Scan() {
			t.Fatalf("no event: %v %s", sc.Err(), errOut.String())
		}
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	if e := next(); e.Action != daemon.ActionSync || e.Revision != 1 {
		t.Errorf("%+v", e)
	}
	w.ok("disk", "add", "m", "--store", "mem:", "--size", "1MiB")
	w.ok("lun", "add", "t", "m", "--lun", "5")
	if e := next(); e.Revision != 2 || e.Action != config.Add || e.Kind != "disk" || e.Name != "m" {
		t.Errorf("%+v", e)
	}
	if e := next(); e.Revision != 3 || e.Kind != "lun" || e.Name != "t/5" {
		t.Errorf("%+v", e)
	}
	// Resumed from a revision: the rest, and no more.
	var got []string
	if err := w.client().Events(ctx, 2, false, func(e api.Event) error {
		got = append(got, fmt.Sprint(e.Revision, e.Action, e.Name))
		return nil
	}); err != nil || !slices.Equal(got, []string{"2 sync ", "3 add t/5"}) && !slices.Equal(got, []string{"2sync", "3addt/5"}) {
		t.Errorf("%q %v", got, err)
	}
	// One that is not known: start anew.
	got = nil
	if err := w.client().Events(ctx, 99, false, func(e api.Event) error { got = append(got, string(e.Action)); return nil }); err != nil || !slices.Equal(got, []string{"reset"}) {
		t.Errorf("%q %v", got, err)
	}
	// A stream does not hold up the end, and says that it is the end.
	s.stop()
	if err := cmd.Wait(); err == nil || !strings.Contains(errOut.String(), "the daemon has ended") {
		t.Errorf("%v %s", err, errOut.String())
	}
}

// A full file system stops the disk; with room again it goes on.
func TestStopAndResume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	w := newWorld(t)
	small := filepath.Join(w.dir, "small")
	os.Mkdir(small, 0o700)
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount here:", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, syscall.MNT_DETACH) })
	s := w.serve()
	w.ok("disk", "add", "b", "--store", "file:"+small+"/b.img", "--size", "4MiB", "--create", "--on-error", "enospc-stop")
	w.ok("lun", "add", "t", "b")
	c := login(t, w.portal, testIQN)
	settle(t, c, 1)
	done := make(chan int, 1)
	data := bytes.Repeat([]byte{9}, 2<<20)
	go func() {
		x := iscsitest.Command{LUN: 1, CDB: []byte{0x2a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0}, Out: data}
		r, err := c.Run(&x)
		if err != nil {
			done <- -1
			return
		}
		done <- int(r.Status)
	}()
	state := func() api.Disk {
		var ds []api.Disk
		if err := json.Unmarshal([]byte(w.ok("get", "disks", "-o", "json")), &ds); err != nil {
			t.Fatal(err)
		}
		return ds[1]
	}
	if !tempotest.Settles(func() bool { return state().State == "stopped" }) {
		t.Fatalf("%+v", state())
	}
	if d := state(); !strings.Contains(d.Error, "no space") || d.Held != 1 {
		t.Errorf("%+v", d)
	}
	select {
	case st := <-done:
		t.Fatalf("the WRITE ended: %d", st)
	case <-time.After(200 * time.Millisecond):
	}
	settle(t, login2(t, w), 0) // others go on
	if err := syscall.Mount("tmpfs", small, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if out := w.ok("disk", "resume", "b"); out != "disk b: running\n" {
		t.Errorf("%s", out)
	}
	select {
	case st := <-done:
		if st != 0 {
			t.Errorf("WRITE: status %d", st)
		}
	case <-time.After(tempotest.Patience):
		t.Fatal("the WRITE did not end")
	}
	if out := w.ok("get", "events"); !strings.Contains(out, "state  disk b: stopped") || !strings.Contains(out, "state  disk b: running") {
		t.Errorf("%s", out)
	}
	w.ok("disk", "resume", "b") // runs already
	w.fails([]string{"disk", "resume", "x"}, "disk x: is not there")

	// Full again: what is held does not hold up the end.
	if _, err := c.Start(&iscsitest.Command{LUN: 1, CDB: []byte{0x2a, 0, 0, 0, 0x10, 0, 0, 0x10, 0, 0}, Out: data}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(small+"/filler", make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for c.Pump() == nil {
		}
	}()
	if !tempotest.Settles(func() bool { return state().Held > 0 }) {
		t.Fatalf("%+v", state())
	}
	s.stop()
	c.Close()
}

// login2 is a second session of the same initiator.
func login2(t *testing.T, w *world) *iscsitest.Conn {
	t.Helper()
	c, err := iscsitest.Dial(w.portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(iscsitest.Login{InitiatorName: testHost, TargetName: testIQN, ISID: [6]byte{0x80, 1, 2, 3, 4, 5}}); err != nil {
		t.Fatal(err)
	}
	return c
}

// Sockets that systemd has bound are taken, and stay when vtgt ends.
func TestActivation(t *testing.T) {
	w := newWorld(t)
	files := func() (out []*os.File) {
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		u.SetUnlinkOnClose(false)
		p, err := net.Listen("tcp", w.portal)
		if err != nil {
			t.Fatal(err)
		}
		uf, err := u.File()
		if err != nil {
			t.Fatal(err)
		}
		pf, err := p.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		u.Close()
		p.Close()
		return []*os.File{uf, pf}
	}()
	defer files[0].Close()
	defer files[1].Close()
	// A client that comes before the daemon is served when it is there.
	early, err := net.Dial("tcp", w.portal)
	if err != nil {
		t.Fatal(err)
	}
	early.Close()
	run := func() *server {
		s := &server{t: t, done: make(chan struct{})}
		s.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:iscsi exec "$0" serve --config "$1"`, binary, w.conf)
		s.cmd.ExtraFiles = files
		r, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		s.cmd.Stderr = pw
		ready := s.follow(r, "msg=ready")
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pw.Close()
		go func() { s.cmd.Wait(); close(s.done) }()
		t.Cleanup(func() { s.cmd.Process.Kill(); <-s.done; r.Close() })
		select {
		case <-ready:
		case <-s.done:
			t.Fatalf("ended\n%s", s.text())
		case <-time.After(tempotest.Patience):
			t.Fatalf("not ready\n%s", s.text())
		}
		return s
	}
	s := run()
	c := login(t, w.portal, testIQN)
	settle(t, c, 0)
	if out := w.ok("get", "exports"); !strings.Contains(out, w.portal) {
		t.Errorf("%s", out)
	}
	c.Close()
	// A portal that goes and comes back.
	w.ok("portal", "add", "127.0.0.3:0")
	w.ok("portal", "rm", w.portal, "--force")
	w.ok("portal", "add", w.portal)
	login(t, w.portal, testIQN).Close()
	s.stop()
	if _, err := os.Lstat(w.socket); err != nil {
		t.Errorf("the API socket is gone, which is systemd's: %v", err)
	}
	run()
	login(t, w.portal, testIQN)
	w.ok("get", "status")
}

// Reloads and the watchdog as systemd sees them.
func TestNotifyReload(t *testing.T) {
	w := newWorld(t)
	addr := filepath.Join(w.dir, "notify")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	s := start(t, []string{"NOTIFY_SOCKET=" + addr, "WATCHDOG_USEC=300000"}, "serve", "--config", w.conf)
	nc.SetReadDeadline(time.Now().Add(tempotest.Patience))
	until := func(want ...string) {
		t.Helper()
		for {
			b := make([]byte, 1024)
			n, err := nc.Read(b)
			if err != nil {
				t.Fatalf("%v: %v", want, err)
			}
			ok := true
			for _, x := range want {
				ok = ok && strings.Contains(string(b[:n]), x)
			}
			if ok {
				return
			}
		}
	}
	until("READY=1", "STATUS=serving 1 disk at 1 target")
	until("WATCHDOG=1")
	s.cmd.Process.Signal(syscall.SIGHUP)
	until("RELOADING=1", "MONOTONIC_USEC=")
	until("READY=1")
	w.write("version: 2\n")
	s.cmd.Process.Signal(syscall.SIGHUP)
	until("RELOADING=1")
	until("READY=1", "the file was not applied", "version 2 is not known")
	until("WATCHDOG=1")
	s.stop()
	until("STOPPING=1")
}

// What is in use changes by force: the session stays, its disk is another one.
func TestForce(t *testing.T) {
	w := newWorld(t)
	w.serve()
	w.ok("disk", "add", "m", "--store", "mem:", "--size", "8MiB")
	c := login(t, w.portal, testIQN)
	settle(t, c, 0)
	w.fails([]string{"disk", "set", "a", "--block-size", "4096"}, "disk a: cannot change (blockSize 512 -> 4096) while initiators use it: "+testHost, "--force")
	if _, note, code := w.vtgt("disk", "set", "a", "--block-size", "4096", "--force"); code != 0 || !strings.Contains(note, "warning: disk a is closed and opened again") {
		t.Errorf("exit %d %s", code, note)
	}
	settle(t, c, 0)
	if b, _ := command1(t, c, iscsitest.Command{CDB: readCapacity, In: 8}); !bytes.Equal(b, []byte{0, 0, 0x3f, 0xff, 0, 0, 0x10, 0}) {
		t.Errorf("capacity %x", b)
	}
	w.fails([]string{"lun", "set", "t", "0", "--disk", "m"}, "lun t/0: is in use by "+testHost)
	w.ok("lun", "set", "t", "0", "--disk", "m", "--force")
	settle(t, c, 0)
	if b, _ := command1(t, c, iscsitest.Command{CDB: readCapacity, In: 8}); !bytes.Equal(b, []byte{0, 0, 0x3f, 0xff, 0, 0, 2, 0}) {
		t.Errorf("capacity %x", b)
	}
	w.ok("disk", "rm", "a") // nobody uses it now
	w.fails([]string{"target", "set", "t", "--iqn", testIQN + "2"}, "target t: its iSCSI export cannot change while initiators are logged in")
	w.ok("target", "rm", "t", "--force")
	if _, err := c.Run(&iscsitest.Command{CDB: make([]byte, 6)}); err == nil {
		t.Error("the session of a target that is gone goes on")
	}
	if out := w.ok("get", "sessions"); strings.Contains(out, testHost) {
		t.Errorf("%s", out)
	}
}

// A change that was acknowledged is there after kill -9.
func TestKilledAfterChange(t *testing.T) {
	w := newWorld(t)
	for i := range 4 {
		s := w.serve()
		name := fmt.Sprint("m", i)
		w.ok("disk", "add", name, "--store", "mem:", "--size", "1MiB")
		s.cmd.Process.Kill()
		<-s.done
		if c, err := config.Load(w.conf); err != nil || c.Disk(name) == nil {
			t.Fatalf("%v\n%s", err, w.config())
		}
	}
	w.serve()
	if out := w.ok("get", "status"); !strings.Contains(out, "revision 5,") {
		t.Errorf("%s", out)
	}
	if out := w.ok("get", "disks"); strings.Count(out, "mem:") != 4 {
		t.Errorf("%s", out)
	}
}

// Every way to say something wrong is told with what to do, and is not 0.
func TestChangeUsage(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"disk"}, "name what to do: add, set, rm, resume, unreserve"},
		{[]string{"disk", "add"}, "name the disk"},
		{[]string{"disk", "add", "a", "b", "--store", "mem:"}, "takes no further argument, not \"b\""},
		{[]string{"disk", "set", "a"}, "nothing is to be changed"},
		{[]string{"lun", "add", "t"}, "name the disk"},
		{[]string{"lun", "rm", "t", "x"}, "\"x\" is not the number of a LUN"},
		{[]string{"target", "set", "t", "--no-iscsi", "--alias", "x"}, "leave the other flags out"},
		{[]string{"portal", "add", "1.2.3.4", "-o", "xml"}, "unknown output format"},
		{[]string{"disk", "rm", "a"}, "no vtgt daemon is here"},
		{[]string{"get", "events", "-o", "xml"}, "unknown output format"},
	} {
		w.fails(tc.args, tc.want)
	}
}
