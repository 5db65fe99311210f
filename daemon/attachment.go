package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vtgt/vtgt/daemon/state"
)

// An Attachment is the journal of what vtgt has set up outside of itself so that a
// consumer sees a target: a libvirt domain, an ESXi host, a Xen domain. Who sets it up
// (vtgt attach, with its user's credentials) writes each step down, with what takes it
// back, before doing it; the daemon keeps the journal and does nothing with it. It
// holds no secrets: the file is readable by whoever may read the state folder, and the
// record by whoever may use the API socket.
type Attachment struct {
	// ID is made by the daemon.
	ID string `json:"id"`
	// Kind is libvirt, vsphere or xen.
	Kind string `json:"kind"`
	// Target is the target's name, LUN the number of the only LUN that is meant,
	// AllLUNs (-1): all of them.
	Target string `json:"target"`
	LUN    int    `json:"lun"`
	// Subject is who sees the target: a domain's UUID, a host's name. There is one
	// attachment at most for a kind, target, LUN and subject.
	Subject string `json:"subject"`
	// Options are what the command was given, and what it wants to know again.
	Options map[string]string `json:"options,omitempty"`
	State   AttachmentState   `json:"state"`
	Steps   []AttachmentStep  `json:"steps"`
	Created time.Time         `json:"created"`
	Changed time.Time         `json:"changed"`
	// Revision counts the changes of this record, from 1.
	Revision uint64 `json:"revision"`
}

// AllLUNs as an Attachment's LUN means all of the target's.
const AllLUNs = -1

// AttachmentState is how far an attachment has come.
type AttachmentState string

// The states.
const (
	Attaching AttachmentState = "attaching" // begun, and perhaps broken off
	Attached  AttachmentState = "attached"  // all steps are done
	Detaching AttachmentState = "detaching" // steps are being undone, or that broke off
	// Damaged: the record cannot be read. It can only be deleted.
	Damaged AttachmentState = "damaged"
)

// AttachmentStep is one thing that was set up.
type AttachmentStep struct {
	// Name says which step of its kind this is, and so who undoes it.
	Name string `json:"name"`
	// Args are what it was done with, Undo is what undoing it needs to know.
	Args  map[string]string `json:"args,omitempty"`
	Undo  map[string]string `json:"undo,omitempty"`
	State StepState         `json:"state"`
}

// StepState is how far a step has come.
type StepState string

// The states.
const (
	Planned StepState = "planned" // about to be done: it may have been, in part or whole
	Done    StepState = "done"
	Undone  StepState = "undone"
)

const (
	attachmentVersion = 1
	maxAttachments    = 10000
	maxSteps          = 1000
	maxAttachmentSize = 4 << 20 // bytes of JSON
)

// attachmentFile is what lies in the state folder.
type attachmentFile struct {
	Version int `json:"version"`
	Attachment
}

// attachments keeps the records: all in memory, each in its file before a change is
// answered.
type attachments struct {
	rec *state.Records
	mu  sync.Mutex
	all map[string]*Attachment // never changed in place
}

// load reads the records of an earlier daemon. One that cannot be read does not keep
// vtgt from serving: trouble hears of it.
func (s *attachments) load(rec *state.Records, trouble func(path string, err error)) error {
	s.rec, s.all = rec, map[string]*Attachment{}
	names, err := rec.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		b, err := rec.Load(n)
		if err == nil && b == nil {
			continue
		}
		var f attachmentFile
		if err == nil {
			err = json.Unmarshal(b, &f)
		}
		if err == nil && f.Version != attachmentVersion {
			err = fmt.Errorf("version %d is not known", f.Version)
		}
		if err == nil && f.ID != n {
			err = fmt.Errorf("it is of attachment %q", f.ID)
		}
		if err == nil {
			err = f.check()
		}
		if err != nil {
			trouble(rec.Path(n), err)
			f.Attachment = Attachment{ID: n, Kind: f.Kind, Target: f.Target, LUN: f.LUN, Subject: f.Subject, State: Damaged}
		}
		if f.Steps == nil {
			f.Steps = []AttachmentStep{}
		}
		s.all[n] = &f.Attachment
	}
	return nil
}

func (a *Attachment) object() string {
	if a.ID == "" {
		return "attachment"
	}
	return "attachment " + a.ID
}

// check looks at a record that comes from outside.
func (a *Attachment) check() error {
	bad := func(msg string) error {
		return &Error{Code: CodeInvalid, Object: a.object(), Message: msg, Hint: "see daemon.Attachment in the sources for what a record holds"}
	}
	switch {
	case a.Kind == "" || a.Target == "" || a.Subject == "":
		return bad("has no kind, target or subject")
	case a.LUN < AllLUNs || a.LUN > 16383:
		return bad(fmt.Sprintf("LUN %d is not a number of a LUN, nor -1 for all", a.LUN))
	case a.State != Attaching && a.State != Attached && a.State != Detaching:
		return bad(fmt.Sprintf("state %q is not known", clip(string(a.State))))
	case len(a.Steps) > maxSteps:
		return bad(fmt.Sprintf("has more than %d steps", maxSteps))
	}
	for i := range a.Steps {
		s := &a.Steps[i]
		if s.Name == "" || s.State != Planned && s.State != Done && s.State != Undone {
			return bad(fmt.Sprintf("step %d has no name, or not the state planned, done or undone", i))
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func (s *attachments) list() []Attachment {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Attachment, 0, len(s.all))
	for _, a := range s.all {
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b Attachment) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

func (s *attachments) add(a Attachment) (*Attachment, error) {
	a.ID = ""
	if err := a.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxAttachments {
		return nil, &Error{Code: CodeInvalid, Object: "attachments", Message: fmt.Sprintf("there are %d, and no more are kept", maxAttachments), Hint: "detach some"}
	}
	for _, o := range s.all {
		if o.Kind == a.Kind && o.Target == a.Target && o.LUN == a.LUN && o.Subject == a.Subject {
			return nil, &Error{Code: CodeExists, Object: o.object(), Message: fmt.Sprintf("is that of target %s to %s %s already", a.Target, a.Kind, a.Subject), Hint: "go on with that one, or detach it"}
		}
	}
	var b [4]byte
	for a.ID == "" || s.all[a.ID] != nil {
		rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		a.ID = hex.EncodeToString(b[:])
	}
	a.Created = time.Now().UTC()
	a.Revision = 0
	return s.save(&a)
}

// put replaces the record of a.ID, which must be at revision, 0: at any.
func (s *attachments) put(a Attachment, revision uint64) (*Attachment, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.at(a.ID, revision)
	if err != nil {
		return nil, err
	}
	if o.State == Damaged {
		return nil, &Error{Code: CodeInvalid, Object: a.object(), Message: "cannot be read, so it is not replaced", Hint: "look at " + s.rec.Path(a.ID) + ", or delete it"}
	}
	if o.Kind != a.Kind || o.Target != a.Target || o.LUN != a.LUN || o.Subject != a.Subject {
		return nil, &Error{Code: CodeInvalid, Object: a.object(), Message: "cannot change what it attaches to what", Hint: "add another attachment"}
	}
	a.Created, a.Revision = o.Created, o.Revision
	return s.save(&a)
}

func (s *attachments) at(id string, revision uint64) (*Attachment, error) {
	o := s.all[id]
	if o == nil {
		return nil, notThere("attachment "+clip(id), "vtgt get attachments lists those there are")
	}
	if revision != 0 && o.Revision != revision {
		return nil, revisionError(o.object(), o.Revision, revision)
	}
	return o, nil
}

// save makes a, whose maps and slices are its own from now on, stable. s.mu is held.
func (s *attachments) save(a *Attachment) (*Attachment, error) {
	a.Revision++
	a.Changed = time.Now().UTC()
	if a.Steps == nil {
		a.Steps = []AttachmentStep{}
	}
	b, err := json.MarshalIndent(attachmentFile{attachmentVersion, *a}, "", "  ")
	if err != nil {
		return nil, err
	}
	if len(b) > maxAttachmentSize {
		return nil, &Error{Code: CodeInvalid, Object: a.object(), Message: "is larger than 4 MiB", Hint: "keep less in its steps"}
	}
	if err := s.rec.Save(a.ID, b); err != nil {
		return nil, stateError(err)
	}
	s.all[a.ID] = a
	c := *a
	return &c, nil
}

// remove forgets a record. That it is not there is no error.
func (s *attachments) remove(id string, revision uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[id] == nil {
		return nil
	}
	if _, err := s.at(id, revision); err != nil {
		return err
	}
	if err := s.rec.Save(id, nil); err != nil {
		return stateError(err)
	}
	delete(s.all, id)
	return nil
}

// Attachments lists the attachments, oldest first. What they hold must not be changed.
func (d *Daemon) Attachments() []Attachment { return d.atts.list() }

// AddAttachment keeps a new record: its ID, Created, Changed and Revision are made here.
// It is stable when AddAttachment returns nil. Two of the same kind, target, LUN and
// subject are an error, CodeExists.
func (d *Daemon) AddAttachment(a Attachment) (*Attachment, error) {
	if d.closing.Load() {
		return nil, errClosing()
	}
	return d.atts.add(a)
}

// PutAttachment replaces the record of a.ID, which must be at revision (0: at any). It
// is stable when PutAttachment returns nil.
func (d *Daemon) PutAttachment(a Attachment, revision uint64) (*Attachment, error) {
	if d.closing.Load() {
		return nil, errClosing()
	}
	return d.atts.put(a, revision)
}

// DeleteAttachment forgets a record, which must be at revision (0: at any); one that is
// not there is no error. What the record says was set up is not touched.
func (d *Daemon) DeleteAttachment(id string, revision uint64) error {
	if d.closing.Load() {
		return errClosing()
	}
	return d.atts.remove(id, revision)
}
