package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
)

// Kind is the kind of this package's attachments.
const Kind = "libvirt"

// Options say what to attach to what. The zero value of the optional fields works.
type Options struct {
	// URI is the libvirt's; empty: DefaultURI.
	URI string
	// Domain is a domain's name or UUID, Target a target's name.
	Domain, Target string
	// LUN is the number of the LUN, by iSCSI; negative: the target's only one.
	LUN int
	// Via is ViaISCSI or ViaVHost; empty: the only way there is.
	Via string
	// Live and Config say where to: the domain as it runs, and its definition for
	// the next start. Neither: both, as far as they are there.
	Live, Config bool
	// Portal is HOST:PORT for a domain; empty: one of the daemon's.
	Portal string
	// CHAPUser is the user of the target's that the domain logs in as; empty: the
	// first.
	CHAPUser string
	// Wait bounds the wait until the guest lets go of a device; 0: one minute.
	Wait time.Duration
	// Forget has Detach take back only what vtgt has changed at itself, because the
	// libvirt is gone for good.
	Forget bool
	// Out hears of what is done, for people; nil: nobody.
	Out io.Writer
}

// Keys of an attachment's Options.
const (
	optName    = "name"    // the domain's
	optConnect = "connect" // URI
	optVia     = "via"
)

// The steps, by what they set up.
const (
	stepAccess           = "access"            // mask, identity at our side
	stepSecret           = "secret"            // libvirt's, for CHAP
	stepPortConfig       = "port-config"       // root port for the controller
	stepControllerConfig = "controller-config" // virtio-scsi, in the definition
	stepControllerLive   = "controller-live"
	stepDiskConfig       = "disk-config"
	stepDiskLive         = "disk-live"
	stepVHostConfig      = "vhost-config" // <qemu:commandline>
	stepVHostLive        = "vhost-live"   // by QMP
)

// worker is one command at work.
type worker struct {
	o    Options
	api  *api.Client
	c    *conn
	dom  *domain // nil: it is not there any more
	caps *capabilities
	e    attach.Engine
	// whole: what is undone in the definition is to leave the running domain, too,
	// which may have been started with it.
	whole bool
}

func newWorker(c *api.Client, o Options) *worker {
	if o.URI == "" {
		o.URI = DefaultURI()
	}
	if o.Wait == 0 {
		o.Wait = time.Minute
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	w := &worker{o: o, api: c}
	w.e = attach.Engine{Journal: c, AbortTime: 2*time.Minute + o.Wait, Undos: map[string]attach.Undo{
		stepAccess: w.undoAccess, stepSecret: w.undoSecret,
		stepPortConfig: w.undoPort, stepControllerConfig: w.undoController, stepControllerLive: w.undoController,
		stepDiskConfig: w.undoDisk, stepDiskLive: w.undoDisk,
		stepVHostConfig: w.undoVHost, stepVHostLive: w.undoVHost,
	}, Progress: func(verb string, s *api.AttachmentStep) {
		fmt.Fprintln(w.o.Out, tell(verb, s))
	}}
	return w
}

// tell is a step for people.
func tell(verb string, s *api.AttachmentStep) string {
	what := map[string]string{
		stepAccess: "access to the LUN", stepSecret: "libvirt's secret for CHAP",
		stepPortConfig: "root port in the definition", stepControllerConfig: "virtio-scsi controller in the definition", stepControllerLive: "virtio-scsi controller in the running domain",
		stepDiskConfig: "disk in the definition", stepDiskLive: "disk in the running domain",
		stepVHostConfig: "vhost-user device in the definition", stepVHostLive: "vhost-user device in the running domain",
	}[s.Name]
	if verb == "do" {
		return "+ " + what
	}
	return "- " + what
}

func (w *worker) open(ctx context.Context) (err error) {
	w.c, err = dial(ctx, w.o.URI)
	return err
}

func (w *worker) close() {
	if w.c != nil {
		w.c.close()
	}
}

// alias is what libvirt and QEMU know the device of an attachment by.
func alias(a *api.Attachment) string { return "ua-vtgt-" + a.ID }

func deviceID(a *api.Attachment) string { return "vtgt-" + a.ID }

// where resolves Live and Config.
func (w *worker) where() (live, config bool, err error) {
	live, config = w.o.Live, w.o.Config
	if !live && !config {
		return w.dom.running, w.dom.persistent, nil
	}
	if live && !w.dom.running {
		return false, false, fmt.Errorf("domain %s: does not run; leave --live out, or start it", w.dom.name)
	}
	if config && !w.dom.persistent {
		return false, false, fmt.Errorf("domain %s: is transient: it has no definition for a next start; leave --config out", w.dom.name)
	}
	return live, config, nil
}

// plan is what is to be attached, and where.
type plan struct {
	t            *target
	via          string
	lun          int
	live, config bool
	// liveDef and configDef are the definitions that are changed, nil where not.
	liveDef, configDef *definition
}

func (w *worker) plan(ctx context.Context) (*plan, error) {
	t, err := lookUp(ctx, w.api, w.o.Target)
	if err != nil {
		return nil, err
	}
	p := &plan{t: t, lun: api.AllLUNs}
	if p.via, err = t.via(w.o.Via); err != nil {
		return nil, err
	}
	if p.via == ViaISCSI {
		l, err := t.lun(w.o.LUN)
		if err != nil {
			return nil, err
		}
		p.lun = int(l.LUN)
	} else if w.o.LUN >= 0 {
		return nil, fmt.Errorf("--lun: a vhost-user device shows all LUNs of its target; leave it out, or use --via iscsi")
	}
	if w.dom, err = w.c.domain(ctx, w.o.Domain); err != nil {
		return nil, err
	}
	if p.live, p.config, err = w.where(); err != nil {
		return nil, err
	}
	if w.caps, err = w.c.capabilities(ctx); err != nil {
		return nil, err
	}
	return p, w.read(ctx, p)
}

// read reads the definitions.
func (w *worker) read(ctx context.Context, p *plan) error {
	for _, x := range []struct {
		wanted, config bool
		to             **definition
	}{{p.live, false, &p.liveDef}, {p.config, true, &p.configDef}} {
		if !x.wanted {
			continue
		}
		text, err := w.dom.xml(ctx, x.config, false)
		if err != nil {
			return err
		}
		if *x.to, err = parse(text); err != nil {
			return fmt.Errorf("domain %s: %w", w.dom.name, err)
		}
	}
	return nil
}

func (p *plan) defs() (ds []*definition) {
	for _, d := range []*definition{p.liveDef, p.configDef} {
		if d != nil {
			ds = append(ds, d)
		}
	}
	return ds
}

// Attach puts a target's LUN, or by vhost-user all of a target, into a domain. When it
// fails the domain is as it was.
func Attach(ctx context.Context, c *api.Client, o Options) error {
	w := newWorker(c, o)
	if err := w.open(ctx); err != nil {
		return err
	}
	defer w.close()
	p, err := w.plan(ctx)
	if err != nil {
		return err
	}
	r, err := w.e.Begin(ctx, api.Attachment{Kind: Kind, Target: p.t.Name, LUN: p.lun, Subject: w.dom.uuid,
		Options: map[string]string{optName: w.dom.name, optConnect: w.o.URI, optVia: p.via}})
	if err != nil {
		return err
	}
	if err = w.steps(ctx, r, p); err != nil {
		return r.Abort(ctx, err)
	}
	fmt.Fprintf(w.o.Out, "%s is attached to domain %s (%s)\n", p.what(), w.dom.name, places(p.live, p.config))
	return nil
}

// steps does what is to be done, or what an earlier run has left to do.
func (w *worker) steps(ctx context.Context, r *attach.Run, p *plan) error {
	if r.Resumed() {
		if err := w.resume(ctx, r, p); err != nil {
			return err
		}
		// What the earlier run had begun is not there any more.
		now, err := w.plan(ctx)
		if err != nil {
			return err
		}
		*p = *now
	}
	do := w.attachISCSI
	if p.via == ViaVHost {
		do = w.attachVHost
	}
	if err := do(ctx, r, p); err != nil {
		return err
	}
	return r.Finish(ctx)
}

func (p *plan) what() string {
	if p.lun == api.AllLUNs {
		return "target " + p.t.Name
	}
	return fmt.Sprintf("LUN %d of target %s", p.lun, p.t.Name)
}

func places(live, config bool) string {
	switch {
	case live && config:
		return "now, and after its next start"
	case live:
		return "until it ends"
	}
	return "from its next start on"
}

// resume looks at what an earlier run has left: what is in the journal and gone in the
// domain is done anew.
func (w *worker) resume(ctx context.Context, r *attach.Run, p *plan) error {
	rec := r.Record()
	if via := rec.Options[optVia]; via != p.via && via != "" {
		return fmt.Errorf("%s is attached to domain %s by %s already; detach it first", p.what(), w.dom.name, via)
	}
	if rec.State == api.Detaching && w.dom.running && len(rec.Steps) > 0 {
		// The guest may have been asked already: it would let go of what is put in now.
		return fmt.Errorf("%s: its detaching from domain %s was broken off; finish that first: vtgt detach libvirt %s %s", p.what(), w.dom.name, w.dom.name, p.t.Name)
	}
	lost := map[string]bool{}
	for i := range rec.Steps {
		s := &rec.Steps[i]
		there, err := w.there(ctx, rec, s)
		if err != nil {
			return err
		}
		if !there && s.State == api.Done {
			lost[s.Name] = true
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if lost[stepSecret] { // with the same identifier: definitions name it
		for i := range rec.Steps {
			if s := &rec.Steps[i]; s.Name == stepSecret {
				fmt.Fprintln(w.o.Out, tell("do", s))
				if err := w.defineSecret(ctx, p.t, s.Undo[undoUUID]); err != nil {
					return err
				}
			}
		}
		delete(lost, stepSecret)
	}
	return r.Forget(ctx, func(s *api.AttachmentStep) bool { return lost[s.Name] })
}

// errNotAttached has the reason in its text.
func (w *worker) notAttached(as []api.Attachment) error {
	var at []string
	for _, a := range as {
		if a.Kind == Kind && a.Target == w.o.Target && (w.o.LUN < 0 || a.LUN == w.o.LUN) {
			n := a.Options[optName]
			if n == "" {
				n = a.Subject
			}
			at = append(at, n)
		}
	}
	if len(at) == 0 {
		return nil
	}
	return fmt.Errorf("target %s: is not attached to domain %s but to %s; vtgt get attachments shows it", w.o.Target, w.o.Domain, strings.Join(at, ", "))
}

// find finds the attachments that the options name. The domain may be gone.
func (w *worker) find(ctx context.Context) ([]api.Attachment, error) {
	as, err := w.api.Attachments(ctx)
	if err != nil {
		return nil, err
	}
	var found []api.Attachment
	for _, a := range as {
		if a.Kind != Kind || a.Target != w.o.Target || a.State == api.Damaged || w.o.LUN >= 0 && a.LUN != w.o.LUN || w.o.Via != "" && a.Options[optVia] != w.o.Via {
			continue
		}
		if a.Subject == strings.ToLower(w.o.Domain) || w.dom != nil && a.Subject == w.dom.uuid || w.dom == nil && a.Options[optName] == w.o.Domain {
			found = append(found, a)
		}
	}
	if len(found) > 1 {
		var luns []string
		for _, a := range found {
			l := "all (--via vhost)"
			if a.LUN != api.AllLUNs {
				l = strconv.Itoa(a.LUN)
			}
			luns = append(luns, l)
		}
		return nil, fmt.Errorf("target %s: several of its LUNs are attached to domain %s: %s; name one with --lun", w.o.Target, w.o.Domain, strings.Join(luns, ", "))
	}
	if len(found) == 0 {
		return nil, w.notAttached(as)
	}
	return found, nil
}

// Detach takes back what Attach has set up, also after a crash of anything, and what is
// left of a domain that is gone. That nothing is attached is no error.
func Detach(ctx context.Context, c *api.Client, o Options) error {
	w := newWorker(c, o)
	// The journal knows where the domain is.
	if o.URI == "" {
		as, err := c.Attachments(ctx)
		if err != nil {
			return err
		}
		for _, a := range as {
			if a.Kind == Kind && a.Target == o.Target && (a.Options[optName] == o.Domain || a.Subject == strings.ToLower(o.Domain)) && a.Options[optConnect] != "" {
				w.o.URI = a.Options[optConnect]
			}
		}
	}
	var none *noDomainError
	if !w.o.Forget {
		if err := w.open(ctx); err != nil {
			return err
		}
		defer w.close()
		dom, err := w.c.domain(ctx, w.o.Domain)
		if err != nil && !errors.As(err, &none) {
			return err
		}
		w.dom = dom
	}
	found, ferr := w.find(ctx)
	if ferr != nil {
		return ferr
	}
	if len(found) == 0 {
		if none != nil {
			return none
		}
		fmt.Fprintf(w.o.Out, "target %s is not attached to domain %s: nothing to do\n", w.o.Target, w.o.Domain)
		return nil
	}
	r := w.e.Open(found[0])
	w.whole = w.o.Live == w.o.Config
	if !w.whole && !w.o.Forget {
		return w.detachSome(ctx, r)
	}
	if err := r.Undo(ctx); err != nil {
		return err
	}
	fmt.Fprintf(w.o.Out, "target %s is detached from domain %s\n", w.o.Target, w.o.Domain)
	return nil
}

// detachSome takes the device out of the running domain, or out of the definition, and
// leaves it in the other.
func (w *worker) detachSome(ctx context.Context, r *attach.Run) error {
	if w.dom == nil {
		return fmt.Errorf("domain %s: is not there any more; leave --live and --config out to take away what is left", w.o.Domain)
	}
	left := false
	for _, s := range r.Record().Steps {
		left = left || (w.o.Live && configStep(s.Name)) || (w.o.Config && liveStep(s.Name))
	}
	if !left { // nothing would be left but what it stands on
		w.whole = true
		if err := r.Undo(ctx); err != nil {
			return err
		}
	} else {
		if w.o.Live {
			// What was started with the device has it without a step of its own.
			if err := w.unplug(ctx, r.Record()); err != nil {
				return err
			}
		}
		err := r.UndoOnly(ctx, func(s *api.AttachmentStep) bool {
			return w.o.Live && liveStep(s.Name) || w.o.Config && configStep(s.Name)
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(w.o.Out, "target %s is detached from domain %s (%s)\n", w.o.Target, w.dom.name, map[bool]string{true: "as it runs", false: "from its next start on"}[w.o.Live])
	return nil
}

func liveStep(name string) bool {
	return slices.Contains([]string{stepControllerLive, stepDiskLive, stepVHostLive}, name)
}

func configStep(name string) bool {
	return slices.Contains([]string{stepPortConfig, stepControllerConfig, stepDiskConfig, stepVHostConfig}, name)
}

// await polls f until it is true, for o.Wait at most; late says then what is in the way.
func (w *worker) await(ctx context.Context, f func(ctx context.Context) (bool, error), late func(ctx context.Context) error) error {
	end := time.Now().Add(w.o.Wait)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		ok, err := f(ctx)
		if ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return late(ctx)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
