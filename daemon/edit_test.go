package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/internal/tempotest"
)

// served starts a daemon whose configuration is a file.
func (w *world) served(text []byte) (*Daemon, string) {
	w.t.Helper()
	file := filepath.Join(w.dir, "f.yaml")
	if err := os.WriteFile(file, text, 0o640); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil { // whatever the umask
		w.t.Fatal(err)
	}
	d, err := New(file, text, Options{LockWait: -1, DrainTime: tempotest.Patience, CloseTime: tempotest.Patience})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return d, file
}

func op(a config.Action, kind, name string, values map[string]any) config.Op {
	return config.Op{Action: a, Kind: kind, Name: name, Values: values}
}

func edit(d *Daemon, ops ...config.Op) (*Result, error) { return d.Edit(Edit{Ops: ops}) }

func TestEdit(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d, file := w.served(w.config(w.one()))
	begun, _ := os.ReadFile(file)

	// Several at once, or none of them.
	mem := map[string]any{"store": "mem:", "size": "1MiB"}
	_, err := edit(d, op(config.Add, "disk", "b", mem), op(config.Add, "disk", "c", map[string]any{"store": "file:" + w.dir + "/none.img"}))
	if err == nil || AsErrors(err)[0].Code != CodeNotFound || len(d.Disks()) != 2 {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != string(begun) {
		t.Errorf("%s", b)
	}
	r, err := edit(d, op(config.Add, "disk", "b", mem), config.Op{Action: config.Add, Kind: "lun", Name: "t1", LUN: 4, Values: map[string]any{"disk": "b"}})
	if err != nil || len(r.Changes) != 2 || r.Revision != 2 {
		t.Fatalf("%+v %v", r, err)
	}
	// A dry run does nothing.
	if r, err := d.Edit(Edit{Ops: []config.Op{op(config.Add, "disk", "c", mem)}, DryRun: true}); err != nil || !r.DryRun || len(r.Changes) != 1 || len(d.Disks()) != 3 {
		t.Errorf("%+v %v", r, err)
	}
	// Revisions: of what changed, and of nothing else.
	revs := map[string]uint64{}
	for _, k := range d.Disks() {
		revs[k.Name] = k.Revision
	}
	if revs["a"] != 1 || revs["b"] != 2 || d.Targets()[0].Revision != 2 || d.Targets()[0].LUNs[0].Revision != 1 || d.Targets()[0].LUNs[1].Revision != 2 {
		t.Errorf("%v %+v", revs, d.Targets())
	}
	set := Edit{Ops: []config.Op{op(config.Modify, "disk", "b", map[string]any{"shared": true})}, Revision: 1}
	_, err = d.Edit(set)
	if es := AsErrors(err); err == nil || es[0].Code != CodeConflict || es[0].Object != "disk b" || es[0].Hint == "" {
		t.Errorf("%v", err)
	}
	set.Revision = 2
	if r, err := d.Edit(set); err != nil || r.Revision != 3 {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := d.Edit(set); err == nil { // twice with the same revision
		t.Error("no conflict")
	}
	if _, err := d.Edit(Edit{Ops: []config.Op{op(config.Add, "disk", "c", mem)}, Revision: 2}); err == nil {
		t.Error("no conflict with the revision of the whole")
	}
	if _, err := d.Apply(file, begun, ApplyOptions{Revision: 2, Save: true}); err == nil || AsErrors(err)[0].Code != CodeConflict {
		t.Errorf("%v", err)
	}
	// Nothing to do is no new revision.
	if r, err := edit(d, op(config.Modify, "disk", "b", map[string]any{"shared": true})); err != nil || len(r.Changes) != 0 || r.Revision != 3 {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := edit(d, op(config.Remove, "disk", "nobody", nil)); err != nil || len(r.Changes) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	for _, tc := range []struct {
		op   config.Op
		code Code
		want string
	}{
		{op(config.Add, "disk", "a", mem), CodeExists, "disk a: is there already"},
		{op(config.Modify, "disk", "z", mem), CodeNotFound, "disk z: is not there; vtgt get disks"},
		{op(config.Remove, "disk", "b", nil), CodeBusy, "disk b: is in use: it is LUN 4 of target t1; take it out first"},
		{op(config.Add, "disk", "c", map[string]any{"store": "mem:"}), CodeInvalid, "disk c: a mem: store needs a size"},
		{op(config.Add, "disk", "c", map[string]any{"stroe": "mem:"}), CodeInvalid, `unknown key "stroe" in disk c; did you mean "store"?`},
		{op(config.Modify, "disk", "b", map[string]any{"thin": "very"}), CodeInvalid, `disk b: thin must be true or false, not the text "very"`},
		{op(config.Remove, "portal", "127.0.0.1:0", nil), CodeInvalid, "there is no portal"},
		{op(config.Add, "cow", "c", nil), CodeInvalid, "kinds are disk"},
	} {
		_, err := edit(d, tc.op)
		if err == nil || AsErrors(err)[0].Code != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %s", tc.op, err, tc.want)
		}
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", fi.Mode(), err)
	}

	// A link to the file stays one.
	link := filepath.Join(w.dir, "link.yaml")
	if err := os.Symlink("f.yaml", link); err != nil {
		t.Fatal(err)
	}
	d.served = link
	if _, err := edit(d, op(config.Modify, "disk", "b", map[string]any{"shared": nil})); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != "f.yaml" {
		t.Errorf("%s %v", to, err)
	}
	if b, _ := os.ReadFile(file); string(b) != d.Config().Text {
		t.Errorf("%s", b)
	}

	// What was in force is kept.
	ks, err := d.History()
	if err != nil || len(ks) != 3 || ks[2].Revision != 1 {
		t.Errorf("%+v %v", ks, err)
	}
	if c, err := d.ConfigAt(1); err != nil || c.Text != string(begun) {
		t.Errorf("%+v %v", c, err)
	}
}

// Where the new text cannot be saved, what was opened for it is closed again.
func TestSaveFails(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	eng := &fakeEngine{open: map[string]bool{}}
	text := []byte(fmt.Sprintf("version: 1\napi: {socket: %q}\nstate: %q\n", dir+"/s", dir+"/state"))
	file := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse(file, text)
	if err != nil {
		t.Fatal(err)
	}
	d, err := start(file, text, cfg, eng, Options{LockWait: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	// A file where the folder of earlier versions would be.
	versions := filepath.Join(dir, "state/versions")
	if err := os.WriteFile(versions, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	add := op(config.Add, "disk", "b", map[string]any{"store": "null:", "size": "1MiB"})
	if _, err := edit(d, add); err == nil {
		t.Fatal("no error")
	}
	if got := eng.things(); len(got) != 0 {
		t.Errorf("open: %v", got)
	}
	if b, _ := os.ReadFile(file); string(b) != string(text) {
		t.Errorf("%s", b)
	}
	if es, _ := filepath.Glob(dir + "/.*"); len(es) != 0 {
		t.Errorf("left: %v", es)
	}
	if err := os.Remove(versions); err != nil {
		t.Fatal(err)
	}
	if _, err := edit(d, add); err != nil {
		t.Error(err)
	}
}

func TestVersionsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d, _ := w.served(w.config(w.one()))
	for i := range state.MaxVersions + 5 {
		if _, err := edit(d, op(config.Modify, "disk", "m", map[string]any{"serial": fmt.Sprint("s", i)})); err != nil {
			t.Fatal(err)
		}
	}
	ks, err := d.History()
	if err != nil || len(ks) != state.MaxVersions || ks[0].Revision != state.MaxVersions+5 {
		t.Errorf("%d, %+v %v", len(ks), ks[0], err)
	}
	if _, err := d.ConfigAt(1); err == nil || AsErrors(err)[0].Code != CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestJournal(t *testing.T) {
	var j journal
	j.init(5)
	if _, ok := j.since(4, 5); ok {
		t.Error("what was before the start is known")
	}
	if at, ok := j.since(5, 5); !ok || at != 0 {
		t.Error(at, ok)
	}
	for i := range maxEvents + 10 {
		j.add(Event{Revision: uint64(6 + i)})
	}
	if _, _, ok := j.read(9); ok {
		t.Error("event 9 is gone")
	}
	if es, _, ok := j.read(10); !ok || len(es) != maxEvents || es[0].Revision != 16 {
		t.Error(len(es), ok)
	}
	last := uint64(5 + maxEvents + 10)
	if _, ok := j.since(14, last); ok {
		t.Error("15 is gone")
	}
	if at, ok := j.since(15, last); !ok || at != 10 {
		t.Error(at, ok)
	}
	if at, ok := j.since(last, last); !ok || at != maxEvents+10 {
		t.Error(at, ok)
	}
	if _, ok := j.since(last+1, last); ok {
		t.Error("a revision that was never there")
	}
}

// A reader that is too slow is told so.
func TestSlowReader(t *testing.T) {
	w := newWorld(t)
	w.file("a.img", 1<<20)
	d := w.start(w.config(w.one()))
	ctx, cancel := context.WithTimeout(context.Background(), tempotest.Patience)
	defer cancel()
	var mu sync.Mutex
	var got []config.Action
	enough := errors.New("enough")
	first, slow := make(chan struct{}), make(chan struct{})
	go func() {
		<-first
		for range maxEvents + 1 {
			d.stateEvent("disk", "a", "x")
		}
		close(slow)
	}()
	err := d.Events(ctx, 0, true, func(es []Event) error {
		mu.Lock()
		defer mu.Unlock()
		if got == nil {
			close(first)
			<-slow
		}
		got = append(got, es[0].Action)
		if len(got) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !slices.Equal(got, []config.Action{ActionSync, ActionReset}) {
		t.Errorf("%v %v", got, err)
	}
}

// A thousand of each: one more costs little, and not more for each that is there.
func TestThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	noLeaks(t)
	took := func(n int) time.Duration {
		dir := t.TempDir()
		eng := &fakeEngine{open: map[string]bool{}}
		var b strings.Builder
		fmt.Fprintf(&b, "version: 1\napi: {socket: %q}\nstate: %q\niscsi: {portals: [\"127.0.0.1:1\"]}\ndisks:\n", dir+"/s", dir+"/state")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: d%d, store: \"null:\", size: 1MiB}\n", i)
		}
		b.WriteString("targets:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: t%d, luns: [{lun: 0, disk: d%d}], iscsi: {iqn: \"iqn.2026-11.org.vtgt:t%d\"}}\n", i, i, i)
		}
		file := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Parse(file, []byte(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		d, err := start(file, []byte(b.String()), cfg, eng, Options{LockWait: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		best := time.Hour
		for i := range 5 {
			begin := time.Now()
			if _, err := edit(d, op(config.Add, "disk", fmt.Sprint("more", i), map[string]any{"store": "null:", "size": "1MiB"})); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(begin))
		}
		return best
	}
	var small, large time.Duration
	// Linear would be 4 times, quadratic 16. On a busy machine either may be
	// held up: one fair comparison is enough.
	for range 10 {
		small, large = took(250), took(1000)
		t.Logf("one more of 250: %v, of 1000: %v", small, large)
		if large <= 10*small {
			return
		}
	}
	t.Errorf("one more of 250 takes %v, of 1000 %v", small, large)
}
