package vsphere

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
)

// Kind is that of the attachments in the journal.
const Kind = "vsphere"

// Options say what is wanted.
type Options struct {
	// Target is the target's name, LUN the number of the only LUN that is meant;
	// api.AllLUNs: all.
	Target string
	LUN    int
	// Portals are where the hosts find it, HOST:PORT; none: all addresses that vtgt
	// listens at, without loopback.
	Portals []string
	// Policy is the path selection policy: rr, mru, fixed; keep: the host's choice.
	Policy string
	// Datastore is the name of a VMFS datastore to be on the LUN. RDM is the virtual
	// machine that gets the LUN as a disk, RDMMode physical or virtual.
	Datastore, RDM, RDMMode string
	// CHAPUser is which of the target's users the hosts are, where it has several.
	// CHAPSecretFile holds the secret where that of the configuration cannot be read.
	CHAPUser, CHAPSecretFile string
	// Wait bounds each wait for something to appear at a host.
	Wait time.Duration
	// DryRun changes nothing and tells what would be done.
	DryRun bool
	// Say hears of each step, before it is done.
	Say func(host, text string)
}

// policies are the names of path selection policies, ours and ESXi's.
var policies = map[string]string{"rr": "VMW_PSP_RR", "mru": "VMW_PSP_MRU", "fixed": "VMW_PSP_FIXED"}

// Check finds what cannot be meant.
func (o *Options) Check() error {
	switch {
	case o.Datastore != "" && o.RDM != "":
		return fail("--datastore and --rdm", "give one of them", "a LUN is a datastore's or a virtual machine's")
	case o.Policy != "keep" && policies[o.Policy] == "":
		return fail("--policy "+o.Policy, "write rr (round robin), mru, fixed or keep", "is no path selection policy")
	case o.RDMMode != "physical" && o.RDMMode != "virtual":
		return fail("--rdm-mode "+o.RDMMode, "write physical (the guest's commands reach vtgt) or virtual (snapshots are possible)", "is no mode")
	case len(o.Datastore) > 42 || strings.ContainsAny(o.Datastore, "/\\%"):
		return fail("--datastore "+o.Datastore, "use up to 42 characters without / \\ %", "is no name of a datastore")
	}
	return nil
}

// job is the work on one host.
type job struct {
	c      *api.Client
	o      *Options
	t      *target // nil to detach
	h      *host
	vm     *vm // that gets a raw device mapping on this host
	eng    attach.Engine
	run    *attach.Run
	rec    *api.Attachment // the record as it was found
	others []api.Attachment
	n      int // what was done
}

func newJob(c *api.Client, o *Options, t *target, h *host) *job {
	j := &job{c: c, o: o, t: t, h: h}
	j.eng = attach.Engine{Journal: c, Undos: j.undos(), AbortTime: 5*time.Minute + 2*o.Wait, Progress: func(verb string, s *api.AttachmentStep) {
		if verb == "undo" {
			j.say("back: %s", describe(s))
		}
	}}
	return j
}

func (j *job) say(format string, args ...any) {
	if j.o.Say != nil {
		j.o.Say(j.h.name, fmt.Sprintf(format, args...))
	}
}

// Attach attaches a target to hosts. changed tells how much was (or would be) done; 0:
// all was there. Hosts that fail are left as they were, and the others are attached.
func Attach(ctx context.Context, s *Session, c *api.Client, w Where, o Options) (changed int, err error) {
	if err := o.Check(); err != nil {
		return 0, err
	}
	t, err := lookUp(ctx, c, &o)
	if err != nil {
		return 0, err
	}
	hosts, err := s.hosts(ctx, w)
	if err != nil {
		return 0, err
	}
	if err := t.mayBeShared(ctx, c, hosts); err != nil {
		return 0, err
	}
	if o.Datastore != "" {
		if err := s.nameFree(ctx, o.Datastore, t.luns[0].naa); err != nil {
			return 0, err
		}
	}
	var m *vm
	if o.RDM != "" {
		if m, err = s.vmNamed(ctx, o.RDM); err != nil {
			return 0, err
		}
		if err := s.runsOn(ctx, m, hosts); err != nil {
			return 0, err
		}
	}
	var errs []error
	ok := 0
	for _, h := range hosts {
		j := newJob(c, &o, t, h)
		if m != nil && m.host == h.ref {
			j.vm = m
		}
		err := j.attach(ctx)
		changed += j.n
		if err == nil {
			ok++
			continue
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if errs != nil && len(hosts) > 1 {
		errs = append(errs, fmt.Errorf("%d of %d hosts are attached; the same command goes on with the others, vtgt detach vsphere takes all back", ok, len(hosts)))
	}
	return changed, errors.Join(errs...)
}

// mayBeShared refuses a disk that the second host could not log in to.
func (t *target) mayBeShared(ctx context.Context, c *api.Client, hosts []*host) error {
	as, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	subjects := map[string]bool{}
	for i := range as {
		if as[i].Kind == Kind && as[i].Target == t.name {
			subjects[as[i].Subject] = true
		}
	}
	for _, h := range hosts {
		subjects[h.uuid] = true
	}
	for _, l := range t.luns {
		if len(subjects) > 1 && !l.shared {
			return fail("disk "+l.disk, "vtgt disk set "+l.disk+" --shared, then again (VMFS and virtual machines of clusters know how to share)",
				"is for one initiator only, and %d hosts are to use it", len(subjects))
		}
	}
	return nil
}

// nameFree looks whether a datastore of that name is another one.
func (s *Session) nameFree(ctx context.Context, name, naa string) error {
	all, err := list[mo.Datastore](ctx, s, "Datastore", "name", "info")
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].Name != name {
			continue
		}
		if v, ok := all[i].Info.(*types.VmfsDatastoreInfo); ok && v.Vmfs != nil {
			for _, e := range v.Vmfs.Extent {
				if strings.EqualFold(e.DiskName, naa) {
					return nil
				}
			}
		}
		return fail("datastore "+name, "choose another name", "is there already, on another disk")
	}
	return nil
}

// runsOn looks whether a virtual machine is on one of the hosts.
func (s *Session) runsOn(ctx context.Context, m *vm, hosts []*host) error {
	for _, h := range hosts {
		if h.ref == m.host {
			return nil
		}
	}
	var on struct {
		mo.HostSystem
	}
	name := "another host"
	if err := s.one(ctx, m.host, []string{"name"}, &on.HostSystem); err == nil {
		name = "host " + on.Name
	}
	return fail("virtual machine "+m.name, "attach to that host, or to its cluster, or move the virtual machine", "is on %s", name)
}

// attach does what is missing at one host.
func (j *job) attach(ctx context.Context) error {
	if err := j.find(ctx); err != nil {
		return err
	}
	err := j.steps(ctx)
	if err == nil && j.rec != nil && j.rec.State != api.Attached && !j.o.DryRun {
		err = j.begin(ctx) // broken off behind the last step
	}
	switch {
	case j.run == nil:
		return err
	case err != nil:
		j.say("failed, going back")
		after := j.run.Abort(ctx, err)
		if after == err {
			j.say("is as it was before")
		}
		return after
	}
	return j.run.Finish(ctx)
}

// find looks for the record, and for those of the same host.
func (j *job) find(ctx context.Context) error {
	as, err := j.c.Attachments(ctx)
	if err != nil {
		return err
	}
	j.rec, j.others = nil, nil
	for i := range as {
		switch a := as[i]; {
		case a.Kind != Kind || a.Subject != j.h.uuid:
		case a.Target == j.o.Target && a.LUN == j.o.LUN:
			j.rec = &a
		default:
			j.others = append(j.others, a)
		}
	}
	return nil
}

// begin opens the record; nothing is written before there is something to do.
func (j *job) begin(ctx context.Context) (err error) {
	if j.run == nil {
		j.run, err = j.eng.Begin(ctx, api.Attachment{Kind: Kind, Target: j.o.Target, LUN: j.o.LUN, Subject: j.h.uuid, Options: map[string]string{
			"name": j.h.name, "server": j.h.s.name,
		}})
	}
	return err
}

// step is one thing to set up.
type step struct {
	name string
	args map[string]string
	text string // what is done; empty: nothing that anybody sees
	// there tells whether the effect is there. ours, optional, tells that it is there
	// because of another attachment that did not mean it, and is to be journalled.
	there func(*storageView) (bool, error)
	ours  func(*storageView) bool
	// undo gives what undoing it needs to know, do does it and may complete that.
	undo func(*storageView) map[string]string
	do   func(ctx context.Context, v *storageView, undo map[string]string) error
}

// held is the same step of one of some attachments, nil if none stands on it.
func held(as []api.Attachment, name string, args map[string]string) *api.AttachmentStep {
	for i := range as {
		for k := range as[i].Steps {
			if s := &as[i].Steps[k]; s.Name == name && s.State != api.Undone && maps.Equal(s.Args, args) {
				return s
			}
		}
	}
	return nil
}

// inherit has a step that is there because of another attachment be taken back as that
// one would have been: whichever of the two goes last does it.
func inherit(undo map[string]string, from *api.AttachmentStep) {
	naas := strings.Fields(undo["naas"] + " " + from.Undo["naas"])
	maps.Copy(undo, from.Undo)
	if len(naas) > 0 {
		slices.Sort(naas)
		undo["naas"] = strings.Join(slices.Compact(naas), " ")
	}
}

// ensure does a step where its effect is not there, and writes it into the journal
// where it is ours to take back.
func (j *job) ensure(ctx context.Context, st step) error {
	v, err := j.h.look(ctx)
	if err != nil {
		return err
	}
	there, err := st.there(v)
	if err != nil {
		return err
	}
	if j.o.DryRun {
		if !there && st.text != "" {
			j.n++
			j.say("would %s", st.text)
		}
		return nil
	}
	var own *api.AttachmentStep
	if j.rec != nil {
		for i := range j.rec.Steps {
			if s := &j.rec.Steps[i]; s.Name == st.name && s.State != api.Undone && maps.Equal(s.Args, st.args) {
				own = s
			}
		}
	}
	done := own != nil && own.State == api.Done
	var share *api.AttachmentStep
	found := false
	if there && own == nil {
		share = held(j.others, st.name, st.args)
		found = share == nil && st.ours != nil && st.ours(v)
	}
	switch {
	case there && (done || own == nil && share == nil && !found):
		return nil // ours and done, or somebody else's
	case share == nil && !found && st.text != "":
		j.n++
		j.say("%s", st.text)
	}
	if done { // somebody has taken it away; the journal knows it
		return st.do(ctx, v, map[string]string{})
	}
	if err := j.begin(ctx); err != nil {
		return err
	}
	s := api.AttachmentStep{Name: st.name, Args: st.args, Undo: map[string]string{}}
	switch {
	case own != nil: // planned before: what is there now may be its own work
		maps.Copy(s.Undo, own.Undo)
	case st.undo != nil:
		maps.Copy(s.Undo, st.undo(v))
	}
	if share != nil {
		inherit(s.Undo, share)
	}
	return j.run.Do(ctx, s, func(ctx context.Context) error {
		if share != nil || found {
			return nil
		}
		if own != nil { // planned before, and now undone
			if v, err = j.h.look(ctx); err != nil {
				return err
			}
		}
		return st.do(ctx, v, s.Undo)
	})
}

// poll is how often is looked for what must appear.
const poll = 500 * time.Millisecond

// await looks at the host until ok, for o.Wait at most.
func (j *job) await(ctx context.Context, ok func(*storageView) bool, again func(context.Context) error) (bool, error) {
	const every = 20 // looks
	end := time.Now().Add(j.o.Wait)
	for n := 1; ; n++ {
		v, err := j.h.look(ctx)
		if err != nil {
			return false, err
		}
		if ok(v) {
			return true, nil
		}
		if !time.Now().Before(end) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(poll):
		}
		if again != nil && n%every == 0 {
			if err := again(ctx); err != nil {
				return false, err
			}
		}
	}
}
