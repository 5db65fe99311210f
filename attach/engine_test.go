package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vtgt/vtgt/api"
)

// memJournal is the daemon's journal; fail counts down to the write that fails.
type memJournal struct {
	recs map[string]api.Attachment
	fail int
	fell error
	n    int
}

var errCrash = errors.New("killed here")

func (j *memJournal) write() error {
	if j.fell != nil {
		return j.fell
	}
	if j.fail > 0 {
		if j.fail--; j.fail == 0 {
			j.fell = errCrash
			return errCrash
		}
	}
	return nil
}

func (j *memJournal) Attachments(context.Context) ([]api.Attachment, error) {
	var out []api.Attachment
	for _, a := range j.recs {
		a.Steps = slices.Clone(a.Steps)
		out = append(out, a)
	}
	return out, nil
}

func (j *memJournal) AddAttachment(_ context.Context, a api.Attachment) (*api.Attachment, error) {
	if err := j.write(); err != nil {
		return nil, err
	}
	for _, o := range j.recs {
		if o.Kind == a.Kind && o.Target == a.Target && o.LUN == a.LUN && o.Subject == a.Subject {
			return nil, &api.Error{Code: api.CodeExists}
		}
	}
	j.n++
	a.ID, a.Revision = fmt.Sprint(j.n), 1
	j.recs[a.ID] = a
	return &a, nil
}

func (j *memJournal) PutAttachment(_ context.Context, a api.Attachment) (*api.Attachment, error) {
	if err := j.write(); err != nil {
		return nil, err
	}
	if j.recs[a.ID].Revision != a.Revision {
		return nil, &api.Error{Code: api.CodeConflict}
	}
	a.Revision++
	k := a
	k.Steps = slices.Clone(a.Steps)
	j.recs[a.ID] = k
	return &a, nil
}

func (j *memJournal) DeleteAttachment(_ context.Context, a api.Attachment) error {
	if err := j.write(); err != nil {
		return err
	}
	if o, ok := j.recs[a.ID]; ok && o.Revision != a.Revision {
		return &api.Error{Code: api.CodeConflict}
	}
	delete(j.recs, a.ID)
	return nil
}

// world is what is set up: a stack, whose things stand on each other.
type world struct {
	j      *memJournal
	things []string
	crash  int // calls until one does its work and is then killed, or before it
	after  bool
	stuck  string // cannot be undone
}

func (w *world) call(f func()) error {
	if w.j.fell != nil {
		return w.j.fell
	}
	if w.crash > 0 {
		if w.crash--; w.crash == 0 {
			if w.after {
				f()
			}
			w.j.fell = errCrash
			return errCrash
		}
	}
	f()
	return nil
}

func (w *world) engine() *Engine {
	undo := func(_ context.Context, _ *api.Attachment, s *api.AttachmentStep) error {
		if w.stuck == s.Name {
			return errors.New("stuck")
		}
		return w.call(func() {
			i := slices.Index(w.things, s.Name)
			if i < 0 {
				return // gone already
			}
			if i != len(w.things)-1 {
				panic("something stands on " + s.Name)
			}
			w.things = w.things[:i]
		})
	}
	return &Engine{Journal: w.j, Undos: map[string]Undo{"a": undo, "b": undo, "c": undo}}
}

func (w *world) attach(fail string) error {
	ctx := context.Background()
	r, err := w.engine().Begin(ctx, api.Attachment{Kind: "k", Target: "t", Subject: "s"})
	if err != nil {
		return err
	}
	for _, n := range []string{"a", "b", "c"} {
		err := r.Do(ctx, api.AttachmentStep{Name: n, Args: map[string]string{"x": n}}, func(context.Context) error {
			if n == fail {
				return errors.New(n + " does not work")
			}
			return w.call(func() { w.things = append(w.things, n) })
		})
		if w.j.fell != nil {
			return err // killed: nobody is left to abort
		}
		if err != nil {
			return r.Abort(ctx, err)
		}
	}
	return r.Finish(ctx)
}

func (w *world) detach() error {
	ctx := context.Background()
	r, err := w.engine().Find(ctx, "k", "t", 0, "s")
	if err != nil || r == nil {
		return err
	}
	return r.Undo(ctx)
}

func newWorld() *world { return &world{j: &memJournal{recs: map[string]api.Attachment{}}} }

func (w *world) clean(t *testing.T) {
	t.Helper()
	if len(w.things) > 0 || len(w.j.recs) > 0 {
		t.Errorf("left: %v, %v", w.things, w.j.recs)
	}
}

func TestAttachDetach(t *testing.T) {
	w := newWorld()
	for range 2 { // the second finds all done
		if err := w.attach(""); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(w.things, ""); got != "abc" {
			t.Errorf("%q", got)
		}
		for _, a := range w.j.recs {
			if a.State != api.Attached || len(a.Steps) != 3 {
				t.Errorf("%+v", a)
			}
		}
	}
	if err := w.detach(); err != nil {
		t.Fatal(err)
	}
	w.clean(t)
	if err := w.detach(); err != nil { // nothing there
		t.Fatal(err)
	}
}

func TestFailingStep(t *testing.T) {
	for _, n := range []string{"a", "b", "c"} {
		w := newWorld()
		if err := w.attach(n); err == nil || err.Error() != n+" does not work" {
			t.Errorf("%v", err)
		}
		w.clean(t)
	}
}

// killed runs f with a kill at each point there is: at each write of the journal, and
// before and after each thing that is set up or taken away.
func killed(t *testing.T, prepare, f func(w *world) error, then func(w *world)) {
	t.Helper()
	points := 0
	for _, kind := range []string{"journal", "before", "after"} {
		for n := 1; ; n++ {
			w := newWorld()
			if prepare != nil {
				if err := prepare(w); err != nil {
					t.Fatal(err)
				}
			}
			if kind == "journal" {
				w.j.fail = n
			} else {
				w.crash, w.after = n, kind == "after"
			}
			err := f(w)
			if w.j.fell == nil {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil {
				t.Errorf("%s %d: no error", kind, n)
			}
			points++
			w.j.fell, w.j.fail, w.crash = nil, 0, 0
			then(w)
			if t.Failed() {
				t.Fatalf("killed at %s %d", kind, n)
			}
		}
	}
	if points < 10 {
		t.Errorf("only %d points", points)
	}
}

func TestKilledAttach(t *testing.T) {
	killed(t, nil, func(w *world) error { return w.attach("") }, func(w *world) {
		if err := w.detach(); err != nil {
			t.Error(err)
		}
		w.clean(t)
	})
}

func TestKilledAttachResumed(t *testing.T) {
	killed(t, nil, func(w *world) error { return w.attach("") }, func(w *world) {
		if err := w.attach(""); err != nil {
			t.Error(err)
		}
		if got := strings.Join(w.things, ""); got != "abc" {
			t.Errorf("%q", got)
		}
		if err := w.detach(); err != nil {
			t.Error(err)
		}
		w.clean(t)
	})
}

func TestKilledDetach(t *testing.T) {
	killed(t, func(w *world) error { return w.attach("") }, (*world).detach, func(w *world) {
		if err := w.detach(); err != nil {
			t.Error(err)
		}
		w.clean(t)
	})
}

// What cannot be undone stops the undoing, and is tried again.
func TestStuck(t *testing.T) {
	w := newWorld()
	if err := w.attach(""); err != nil {
		t.Fatal(err)
	}
	w.stuck = "b"
	if err := w.detach(); err == nil || !strings.Contains(err.Error(), "step b cannot be taken back: stuck") {
		t.Errorf("%v", err)
	}
	if got := strings.Join(w.things, ""); got != "ab" {
		t.Errorf("%q", got)
	}
	w.stuck = ""
	if err := w.detach(); err != nil {
		t.Error(err)
	}
	w.clean(t)
}

// A run whose record another one takes over stops, and leaves it alone.
func TestTakenOver(t *testing.T) {
	w := newWorld()
	ctx := context.Background()
	r, err := w.engine().Begin(ctx, api.Attachment{Kind: "k", Target: "t", Subject: "s"})
	if err != nil {
		t.Fatal(err)
	}
	step := func(r *Run, n string) error {
		return r.Do(ctx, api.AttachmentStep{Name: n}, func(context.Context) error { w.things = append(w.things, n); return nil })
	}
	if err := step(r, "a"); err != nil {
		t.Fatal(err)
	}
	s, err := w.engine().Begin(ctx, api.Attachment{Kind: "k", Target: "t", Subject: "s"})
	if err != nil || !s.Resumed() || r.Resumed() {
		t.Fatal(err)
	}
	err = step(r, "b")
	if err == nil || !strings.Contains(err.Error(), "another vtgt works on") {
		t.Errorf("%v", err)
	}
	if aerr := r.Abort(ctx, err); !errors.Is(aerr, err) || strings.Join(w.things, "") != "a" {
		t.Errorf("%v %v", aerr, w.things)
	}
	if err := step(s, "b"); err != nil {
		t.Fatal(err)
	}
	// It takes back its own only.
	if err := s.Abort(ctx, errors.New("no")); err.Error() != "no" || strings.Join(w.things, "") != "a" {
		t.Errorf("%v %v", err, w.things)
	}
	if err := w.detach(); err != nil {
		t.Error(err)
	}
	w.clean(t)
}

// Steps can be taken back apart, and forgotten.
func TestUndoOnlyForget(t *testing.T) {
	w := newWorld()
	ctx := context.Background()
	if err := w.attach(""); err != nil {
		t.Fatal(err)
	}
	r, err := w.engine().Find(ctx, "k", "t", 0, "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.UndoOnly(ctx, func(s *api.AttachmentStep) bool { return s.Name == "c" }); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(w.things, ""); got != "ab" || len(r.Record().Steps) != 2 {
		t.Errorf("%q %+v", got, r.Record())
	}
	w.things = w.things[:1] // b is lost
	if err := r.Forget(ctx, func(s *api.AttachmentStep) bool { return s.Name == "b" }); err != nil || len(r.Record().Steps) != 1 {
		t.Errorf("%v %+v", err, r.Record())
	}
	if err := w.attach(""); err != nil || strings.Join(w.things, "") != "abc" {
		t.Errorf("%v %v", err, w.things)
	}
	if err := w.detach(); err != nil {
		t.Error(err)
	}
	w.clean(t)
}

// A record whose only step was broken off does not stay when the next run fails, too.
func TestBrokenOffThenFails(t *testing.T) {
	w := newWorld()
	w.crash, w.after = 1, true
	if err := w.attach(""); err == nil {
		t.Fatal("not killed")
	}
	w.j.fell, w.crash = nil, 0
	if err := w.attach("a"); err == nil {
		t.Fatal("no error")
	}
	w.clean(t)
}
