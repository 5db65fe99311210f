package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// fake is a backend with one of everything.
type fake struct {
	attached
	applied []string
	edits   []daemon.Edit
}

func (f *fake) Status() daemon.Status {
	return daemon.Status{State: "running", Revision: 3, Started: time.Unix(1000, 0), Applied: time.Unix(2000, 0), Traffic: daemon.Traffic{Complaints: map[string]uint64{"format": 1}}}
}

func (f *fake) Disks() []daemon.DiskStatus {
	lat := make([]uint64, 36)
	lat[0], lat[9], lat[10], lat[20], lat[35] = 1, 2, 4, 8, 16
	return []daemon.DiskStatus{{Name: "a", Size: 1 << 30, Space: &daemon.SpaceStatus{Used: 1 << 20, Available: 1 << 30}, Stats: daemon.UnitStats{Reads: 7, Errors: map[string]uint64{"medium-error": 2}, Latency: lat, LatencySum: 2e9}}}
}
func (f *fake) Targets() []daemon.TargetStatus {
	return []daemon.TargetStatus{{Name: "t", Sessions: 1}}
}
func (f *fake) Exports() []daemon.ExportStatus {
	return []daemon.ExportStatus{{Kind: "vhost", Target: "vm1", State: "connected", VHost: &daemon.VHostStatus{Started: 4}},
		{Kind: "vio", Target: "lpar1", State: "connected", VIO: &daemon.VIOStatus{Client: "logged in"}},
		{Kind: "xen", Target: "vm7", State: "connected", Xen: &daemon.XenStatus{Backend: "Connected"}}}
}
func (f *fake) Sessions() []daemon.Session { return []daemon.Session{{Target: "t"}} }
func (f *fake) Config() daemon.ConfigText  { return daemon.ConfigText{File: "f", Text: "version: 1\n"} }
func (f *fake) Apply(file string, text []byte, o daemon.ApplyOptions) (*daemon.Result, error) {
	if string(text) == "two" {
		return nil, daemon.Errors{{Code: daemon.CodeBusy, Object: "disk a", Message: "m1", Hint: "h1"}, {Code: daemon.CodeInvalid, Object: "disk b", Message: "m2"}}
	}
	if _, err := config.Parse(file, text); err != nil {
		return nil, err
	}
	f.applied = append(f.applied, file)
	return &daemon.Result{DryRun: o.DryRun, Changes: []config.Change{{Action: config.Add, Kind: "disk", Name: "a"}}}, nil
}

func (f *fake) Edit(e daemon.Edit) (*daemon.Result, error) {
	f.edits = append(f.edits, e)
	if e.Revision == 99 {
		return nil, &daemon.Error{Code: daemon.CodeConflict, Object: e.Ops[0].Object(), Message: "m", Hint: "h"}
	}
	return &daemon.Result{Revision: 4, DryRun: e.DryRun, Changes: []config.Change{}, Warnings: []string{}}, nil
}
func (f *fake) Reservations() []daemon.DiskReservations {
	return []daemon.DiskReservations{{Disk: "a", Reservations: daemon.Reservations{Type: "Write Exclusive", Registrations: []daemon.Registration{{Initiator: "iqn.x", Key: "0x1", Holder: true}}}}}
}

func (f *fake) ClearReservations(disk string, force bool) error {
	if !force {
		return daemon.Errors{{Code: daemon.CodeBusy, Object: "disk " + disk, Message: "is in use"}}
	}
	return nil
}

func (f *fake) Resume(disk string) (*daemon.DiskStatus, error) {
	if disk != "a" {
		return nil, &daemon.Error{Code: daemon.CodeNotFound, Object: "disk " + disk, Message: "is not there"}
	}
	return &f.Disks()[0], nil
}
func (f *fake) Events(ctx context.Context, since uint64, follow bool, g func([]daemon.Event) error) error {
	if err := g([]daemon.Event{{Revision: since, Action: daemon.ActionSync}, {Revision: since + 1, Action: config.Add, Kind: "disk", Name: "b"}}); err != nil || !follow {
		return err
	}
	<-ctx.Done()
	return nil
}
func (f *fake) History() ([]daemon.Kept, error) { return []daemon.Kept{{Revision: 2}}, nil }
func (f *fake) ConfigAt(revision uint64) (*daemon.ConfigText, error) {
	return &daemon.ConfigText{Revision: revision, Text: "version: 1\n"}, nil
}

func serve(t *testing.T) (*fake, *Client, *http.Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "s")
	ln, err := Listen(path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	s := Serve(ln, f, ServerConfig{Version: "1.2"})
	c := NewClient(path)
	t.Cleanup(func() {
		c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return f, c, c.hc
}

func TestResources(t *testing.T) {
	f, c, _ := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	if s, err := c.Status(ctx); err != nil || s.Revision != 3 {
		t.Errorf("%+v %v", s, err)
	}
	if v, err := c.Version(ctx); err != nil || v.Version != "1.2" || v.API != 1 {
		t.Errorf("%+v %v", v, err)
	}
	if d, err := c.Disks(ctx); err != nil || d[0].Size != 1<<30 {
		t.Errorf("%+v %v", d, err)
	}
	if x, err := c.Targets(ctx); err != nil || x[0].Name != "t" {
		t.Errorf("%+v %v", x, err)
	}
	if x, err := c.Exports(ctx); err != nil || x == nil {
		t.Errorf("%+v %v", x, err)
	}
	if x, err := c.Sessions(ctx); err != nil || x[0].Target != "t" {
		t.Errorf("%+v %v", x, err)
	}
	if x, err := c.Config(ctx); err != nil || x.Text != "version: 1\n" {
		t.Errorf("%+v %v", x, err)
	}
	if r, err := c.Apply(ctx, "g.yaml", []byte("version: 1\n"), daemon.ApplyOptions{DryRun: true}); err != nil || !r.DryRun || r.Changes[0].String() != "+ disk a" {
		t.Errorf("%+v %v", r, err)
	}
	if !slices.Equal(f.applied, []string{"g.yaml"}) {
		t.Errorf("%v", f.applied)
	}
}

func TestErrors(t *testing.T) {
	_, c, hc := serve(t)
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	_, err := c.Apply(ctx, "g.yaml", []byte("version: 1\nstat: /x\n"), daemon.ApplyOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Status != 400 || e.Code != daemon.CodeInvalid || e.Object != "g.yaml:2:1" || e.Hint != `did you mean "state"?` || e.All != nil {
		t.Errorf("%+v", err)
	}
	_, err = c.Apply(ctx, "g.yaml", []byte("two"), daemon.ApplyOptions{})
	if !errors.As(err, &e) || e.Status != 409 || len(e.All) != 2 || err.Error() != "disk a: m1; h1\ndisk b: m2" {
		t.Errorf("%+v", err)
	}
	for _, x := range []struct {
		method, path string
		status       int
		code         daemon.Code
	}{
		{"GET", "/v1/nothing", 404, daemon.CodeNotFound},
		{"GET", "/", 404, daemon.CodeNotFound},
		{"GET", "/v1/apply", 405, daemon.CodeInvalid},
		{"DELETE", "/v1/disks", 405, daemon.CodeInvalid},
		{"POST", "/v1/apply?dryRun=maybe", 400, daemon.CodeInvalid},
	} {
		req, _ := http.NewRequestWithContext(ctx, x.method, "http://vtgt"+x.path, nil)
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var body map[string]any
		err = json.NewDecoder(resp.Body).Decode(&body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != x.status || body["code"] != string(x.code) {
			t.Errorf("%s %s: %d %v %v", x.method, x.path, resp.StatusCode, body, err)
		}
		for _, k := range []string{"code", "object", "message", "hint"} {
			if body[k] == nil || body[k] == "" {
				t.Errorf("%s %s: no %s in %v", x.method, x.path, k, body)
			}
		}
	}
}

func TestPprof(t *testing.T) {
	_, _, hc := serve(t)
	resp, err := hc.Get("http://vtgt/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(b), "goroutine profile") {
		t.Errorf("%d %.80s", resp.StatusCode, b)
	}
}

// TestMetricsDoc compares docs/metrics.md with what is exported: name, type, labels.
func TestMetricsDoc(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(vtgt_[a-z0-9_]+)` \\| (\\w+) \\| ?([a-z_, ]*?) ?\\| .+ \\|$")
	want := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		want[m[1]] = m[2] + " " + strings.Join(strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' }), ",")
	}
	fams, err := registry(&fake{}, "1.2").Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range fams {
		if !strings.HasPrefix(f.GetName(), "vtgt_") {
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		got[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ",")
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	for n, g := range got {
		switch w, ok := want[n]; {
		case !ok:
			t.Errorf("%s is exported but not in docs/metrics.md", n)
		case sortLabels(g) != sortLabels(w):
			t.Errorf("%s is %q, docs/metrics.md says %q", n, g, w)
		}
	}
	for n := range want {
		if _, ok := got[n]; !ok {
			t.Errorf("docs/metrics.md has %s, which is not exported", n)
		}
	}
}

func sortLabels(s string) string {
	typ, l, _ := strings.Cut(s, " ")
	ls := strings.Split(l, ",")
	slices.Sort(ls)
	return typ + " " + strings.Join(ls, ",")
}

func TestMetricsText(t *testing.T) {
	_, _, hc := serve(t)
	resp, err := hc.Get("http://vtgt/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	for _, want := range []string{
		`vtgt_build_info{goversion="go`, `vtgt_config_revision 3`, `vtgt_disk_reads_total{disk="a"} 7`,
		`vtgt_disk_errors_total{disk="a",sense_key="medium-error"} 2`, `vtgt_iscsi_complaints_total{kind="format"} 1`,
		`vtgt_target_sessions{target="t"} 1`, `go_goroutines`, `process_open_fds`,
		// 1 + 2 took under 2^10 ns; 4 more under 2^11; 8 more under 2^21; 16 are beyond all bounds.
		`vtgt_disk_command_duration_seconds_bucket{disk="a",le="1.024e-06"} 3`,
		`vtgt_disk_command_duration_seconds_bucket{disk="a",le="2.048e-06"} 7`,
		`vtgt_disk_command_duration_seconds_bucket{disk="a",le="0.001048576"} 7`,
		`vtgt_disk_command_duration_seconds_bucket{disk="a",le="0.002097152"} 15`,
		`vtgt_disk_command_duration_seconds_bucket{disk="a",le="+Inf"} 31`,
		`vtgt_disk_command_duration_seconds_sum{disk="a"} 2`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	for _, mode := range []os.FileMode{0o600, 0o660} {
		ln, err := Listen(path, mode, "")
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%v %v", fi.Mode(), err)
		}
		// Somebody answers: refused, and left alone.
		_, err = Listen(path, mode, "")
		if err == nil || daemon.AsErrors(err)[0].Code != daemon.CodeInUse || !strings.Contains(err.Error(), "another vtgt answers there") {
			t.Errorf("%v", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the first one is harmed: %v", err)
		} else {
			c.Close()
		}
		ln.Close()
		if es, _ := os.ReadDir(dir); len(es) != 0 {
			t.Errorf("left behind: %v", es)
		}
	}

	// Stale: left by one that was killed.
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	ln, err := Listen(path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()

	// Not a socket: never removed.
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Listen(path, 0o600, ""); err == nil || !strings.Contains(err.Error(), "something that is not a socket is there") {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "x" {
		t.Error("the file was removed")
	}
	if _, err = Listen(filepath.Join(dir, "t"), 0o660, "no-such-group-here"); err == nil || !strings.Contains(err.Error(), "there is no group no-such-group-here") {
		t.Errorf("%v", err)
	}
	// A folder that cannot be made.
	if _, err = Listen(filepath.Join(path, "sub", "s"), 0o600, ""); err == nil || !strings.Contains(err.Error(), "cannot make its folder") {
		t.Errorf("%v", err)
	}
}

func TestNoDaemon(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	path := filepath.Join(t.TempDir(), "s")
	c := NewClient(path)
	defer c.Close()
	_, err := c.Disks(ctx)
	if err == nil || !strings.Contains(err.Error(), path+": no vtgt daemon is here") || !strings.Contains(err.Error(), "VTGT_SOCKET") {
		t.Errorf("%v", err)
	}
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	if _, err = c.Disks(ctx); err == nil || !strings.Contains(err.Error(), "no vtgt daemon answers here") {
		t.Errorf("%v", err)
	}
}
