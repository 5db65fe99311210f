package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vtgt/vtgt/api"
)

// Journal keeps the records: *api.Client.
type Journal interface {
	Attachments(ctx context.Context) ([]api.Attachment, error)
	AddAttachment(ctx context.Context, a api.Attachment) (*api.Attachment, error)
	PutAttachment(ctx context.Context, a api.Attachment) (*api.Attachment, error)
	DeleteAttachment(ctx context.Context, a api.Attachment) error
}

// Undo takes back what a step of its name has set up, in part or whole; that it is gone
// already is success. a is the record, for its Subject and Options; neither is to be
// changed.
type Undo func(ctx context.Context, a *api.Attachment, s *api.AttachmentStep) error

// Engine does steps and undoes them, with a journal. The zero value of the optional
// fields works.
type Engine struct {
	Journal Journal
	// Undos has one for each name of a step.
	Undos map[string]Undo
	// Progress, optional, hears of each step before it is done or undone: verb is
	// "do" or "undo".
	Progress func(verb string, s *api.AttachmentStep)
	// AbortTime bounds Run.Abort, whose context may have ended; 0: two minutes.
	AbortTime time.Duration
}

// Run is work on one attachment. It is not for several goroutines. Of several runs on
// one record, in several processes, the last one that wrote into it has it: the others
// fail at their next step and leave everything to that one.
type Run struct {
	e     *Engine
	rec   api.Attachment
	first int // steps before this one were there when the run began
	was   api.AttachmentState
	fresh bool
	lost  bool // another run has the record
}

// Begin opens the record of what a names by Kind, Target, LUN and Subject, and makes it
// where there is none. Where an earlier run has left steps (Resumed), those that it was
// doing when it broke off are undone, and Do passes over those that are done. a.Options
// replace those of the record.
func (e *Engine) Begin(ctx context.Context, a api.Attachment) (*Run, error) {
	a.State, a.Steps = api.Attaching, nil
	rec, err := e.Journal.AddAttachment(ctx, a)
	if err == nil {
		return &Run{e: e, rec: *rec, fresh: true}, nil
	}
	var ae *api.Error
	if !errors.As(err, &ae) || ae.Code != api.CodeExists {
		return nil, err
	}
	r, err := e.Find(ctx, a.Kind, a.Target, a.LUN, a.Subject)
	if err != nil {
		return nil, err
	}
	if r == nil { // it went meanwhile
		return nil, ae
	}
	r.rec.Options = a.Options
	if err := r.put(ctx); err != nil { // from now on it is ours
		return nil, err
	}
	return r, r.UndoOnly(ctx, func(s *api.AttachmentStep) bool { return s.State == api.Planned })
}

// Find opens a record that is there; nil where there is none.
func (e *Engine) Find(ctx context.Context, kind, target string, lun int, subject string) (*Run, error) {
	as, err := e.Journal.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	for i := range as {
		if a := &as[i]; a.Kind == kind && a.Target == target && a.LUN == lun && a.Subject == subject {
			return e.Open(*a), nil
		}
	}
	return nil, nil
}

// Open is a run on a record that was listed.
func (e *Engine) Open(a api.Attachment) *Run {
	a.Steps = slices.DeleteFunc(slices.Clone(a.Steps), func(s api.AttachmentStep) bool { return s.State == api.Undone })
	return &Run{e: e, rec: a, first: len(a.Steps), was: a.State}
}

// Record is the record as it is now.
func (r *Run) Record() *api.Attachment { return &r.rec }

// Resumed tells that the record is an earlier run's.
func (r *Run) Resumed() bool { return !r.fresh }

// find is the index of the same step, -1 where there is none.
func (r *Run) find(s *api.AttachmentStep) int {
	return slices.IndexFunc(r.rec.Steps, func(o api.AttachmentStep) bool {
		return o.Name == s.Name && o.State != api.Undone && maps.Equal(o.Args, s.Args)
	})
}

// put writes the record.
func (r *Run) put(ctx context.Context) error {
	rec, err := r.e.Journal.PutAttachment(ctx, r.rec)
	if err != nil {
		var ae *api.Error
		if errors.As(err, &ae) && (ae.Code == api.CodeConflict || ae.Code == api.CodeNotFound) {
			r.lost = true
			return fmt.Errorf("another vtgt works on attachment %s; try again when it has ended: %w", r.rec.ID, err)
		}
		return fmt.Errorf("the journal of attachment %s cannot be written: %w", r.rec.ID, err)
	}
	steps := r.rec.Steps
	r.rec = *rec
	r.rec.Steps = steps // the same, and ours to change
	return nil
}

// Do writes the step s down as planned, does it, and writes it down as done. A step of
// the same Name and Args that is done already is passed over; one that has failed before
// is undone first. When do fails, the step stays planned: Abort or Undo
// takes back what it may have done. do may complete s.Undo's map, where only doing the
// step tells what undoes it, as long as Undo copes without.
func (r *Run) Do(ctx context.Context, s api.AttachmentStep, do func(ctx context.Context) error) error {
	undo := r.e.Undos[s.Name]
	if undo == nil {
		return fmt.Errorf("step %s has no undo: report this as a defect", s.Name)
	}
	if i := r.find(&s); i >= 0 {
		if r.rec.Steps[i].State == api.Done {
			return nil
		}
		r.tell("undo", &r.rec.Steps[i])
		if err := undo(ctx, &r.rec, &r.rec.Steps[i]); err != nil {
			return fmt.Errorf("step %s, which failed before, cannot be taken back: %w", s.Name, err)
		}
		r.rec.Steps = slices.Delete(r.rec.Steps, i, i+1)
		if i < r.first {
			r.first--
		}
	}
	s.State = api.Planned
	r.rec.State = api.Attaching
	r.rec.Steps = append(r.rec.Steps, s)
	step := &r.rec.Steps[len(r.rec.Steps)-1]
	if err := r.put(ctx); err != nil {
		r.rec.Steps = r.rec.Steps[:len(r.rec.Steps)-1]
		return err
	}
	r.tell("do", step)
	if err := do(ctx); err != nil {
		return err
	}
	step.State = api.Done
	return r.put(ctx)
}

func (r *Run) tell(verb string, s *api.AttachmentStep) {
	if r.e.Progress != nil {
		r.e.Progress(verb, s)
	}
}

// Finish writes down that all steps are done.
func (r *Run) Finish(ctx context.Context) error {
	r.rec.State = api.Attached
	return r.put(ctx)
}

// Abort takes back what this run has done, last first, because of why; the record goes
// where no earlier run has left anything in it. It works also when ctx has ended, and
// does nothing where another run has taken the record over. The error is why, and what
// could not be taken back.
func (r *Run) Abort(ctx context.Context, why error) error {
	if r.lost || r.first > 0 && len(r.rec.Steps) == r.first {
		return why
	}
	d := r.e.AbortTime
	if d == 0 {
		d = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	defer cancel()
	if err := r.undo(ctx, r.first); err != nil {
		return errors.Join(why, err, fmt.Errorf("what is left is in the journal: vtgt detach %s takes it away", r.rec.Kind))
	}
	return why
}

// Undo takes all steps back, last first, and then the record. At a step that cannot be
// taken back it stops: those before it may be what that one stands on. Undo can then be
// called again, by a later run too.
func (r *Run) Undo(ctx context.Context) error {
	r.rec.State = api.Detaching
	if err := r.put(ctx); err != nil { // from now on it is ours
		return err
	}
	return r.undo(ctx, 0)
}

// undo takes steps back down to the first'th. It goes on where the journal cannot be
// written, unless another run has it: to undo again what is undone does no harm, to
// leave it does.
func (r *Run) undo(ctx context.Context, first int) error {
	var journal error
	for i := len(r.rec.Steps) - 1; i >= first; i-- {
		s := &r.rec.Steps[i]
		if s.State == api.Undone {
			continue
		}
		undo := r.e.Undos[s.Name]
		if undo == nil {
			return errors.Join(fmt.Errorf("step %s of attachment %s is not known; use a vtgt of the version that made it", s.Name, r.rec.ID), journal)
		}
		r.tell("undo", s)
		if err := undo(ctx, &r.rec, s); err != nil {
			return errors.Join(fmt.Errorf("step %s cannot be taken back: %w", s.Name, err), journal)
		}
		s.State = api.Undone
		if err := r.put(ctx); r.lost {
			return err
		} else if journal == nil {
			journal = err
		}
	}
	if journal != nil {
		return journal
	}
	r.rec.Steps = r.rec.Steps[:first]
	if first > 0 {
		r.rec.State = r.was
		return r.put(ctx)
	}
	if err := r.e.Journal.DeleteAttachment(ctx, r.rec); err != nil {
		return fmt.Errorf("the journal of attachment %s cannot be removed: %w", r.rec.ID, err)
	}
	return nil
}

// UndoOnly takes the steps back that match, last first, and leaves the others and the
// record. Whether those can stand without them is the caller's to know.
func (r *Run) UndoOnly(ctx context.Context, match func(s *api.AttachmentStep) bool) error {
	if !slices.ContainsFunc(r.rec.Steps, func(s api.AttachmentStep) bool { return match(&s) }) {
		return nil
	}
	if err := r.put(ctx); err != nil { // from now on it is ours
		return err
	}
	for i := len(r.rec.Steps) - 1; i >= 0; i-- {
		s := &r.rec.Steps[i]
		if s.State == api.Undone || !match(s) {
			continue
		}
		undo := r.e.Undos[s.Name]
		if undo == nil {
			return fmt.Errorf("step %s of attachment %s is not known; use a vtgt of the version that made it", s.Name, r.rec.ID)
		}
		r.tell("undo", s)
		if err := undo(ctx, &r.rec, s); err != nil {
			return fmt.Errorf("step %s cannot be taken back: %w", s.Name, err)
		}
		r.rec.Steps = slices.Delete(r.rec.Steps, i, i+1)
		if err := r.put(ctx); err != nil {
			return err
		}
	}
	r.first = min(r.first, len(r.rec.Steps))
	return nil
}

// Forget takes steps out of the record whose work is known to be gone, without undoing
// them: Do then does them anew.
func (r *Run) Forget(ctx context.Context, match func(s *api.AttachmentStep) bool) error {
	n := len(r.rec.Steps)
	r.rec.Steps = slices.DeleteFunc(r.rec.Steps, func(s api.AttachmentStep) bool { return match(&s) })
	if len(r.rec.Steps) == n {
		return nil
	}
	r.first = min(r.first, len(r.rec.Steps))
	return r.put(ctx)
}
