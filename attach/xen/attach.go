package xen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/attach"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/xen/nodes"
	"github.com/vtgt/vtgt/xen/xenstore"
)

// Kind is the kind of this package's attachments.
const Kind = "xen"

// Options say what to attach to what. The zero value of the optional fields works, but
// for Device.
type Options struct {
	// Domain is a domain's name, UUID or number, Target a target's name.
	Domain, Target string
	// Device is the number of the device in the domain; negative: the first that is
	// free, or what there is.
	Device int
	// Type is the back end's type in xenstore; empty: config.DefaultXenType.
	Type string
	// Wait is how long Attach waits for the domain to connect (0: it does not), and
	// Detach for it to let go of its disks (0: one minute).
	Wait time.Duration
	// Force has Detach take the device away from a domain that does not let go.
	Force bool
	// Dial connects to xenstored; nil: the one of this machine.
	Dial func() (*xenstore.Conn, error)
	// Out hears of what is done, for people; nil: nobody.
	Out io.Writer
}

// Keys of an attachment's Options, and of a step's Args.
const (
	optName    = "name" // the domain's
	argDomain  = "domain"
	argDevice  = "device"
	argType    = "type"
	undoBefore = "before" // the export was there before
)

// The steps, by what they set up.
const (
	stepExport = "export" // of the target, in the configuration
	stepNodes  = "nodes"  // of the device, in xenstore
)

const (
	offerTime  = 30 * time.Second // for the daemon to take new nodes up
	detachTime = time.Minute
	pollTime   = 50 * time.Millisecond
)

// worker is one command at work.
type worker struct {
	o    Options
	api  *api.Client
	xs   *xenstore.Conn
	self uint32
	dom  *nodes.Domain // nil: it does not run
	e    attach.Engine
}

func open(c *api.Client, o Options) (*worker, error) {
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Dial == nil {
		o.Dial = func() (*xenstore.Conn, error) { return xenstore.Open("") }
	}
	w := &worker{o: o, api: c}
	w.e = attach.Engine{Journal: c, Undos: map[string]attach.Undo{stepExport: w.undoExport, stepNodes: w.undoNodes},
		Progress: func(verb string, s *api.AttachmentStep) { fmt.Fprintln(w.o.Out, tell(verb, s)) }}
	var err error
	if w.xs, err = o.Dial(); err != nil {
		return nil, fmt.Errorf("xenstored cannot be reached: %w; run this in dom0, as root", err)
	}
	if w.self, err = w.xs.Self(); err == nil {
		w.dom, err = w.find(o.Domain)
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("xenstored does not answer: %w; run this in dom0, as root", err)
	}
	return w, nil
}

func (w *worker) close() { _ = w.xs.Close() }

// tell is a step for people.
func tell(verb string, s *api.AttachmentStep) string {
	what := "export in the configuration"
	if s.Name == stepNodes {
		what = "device in the domain"
	}
	if verb == "do" {
		return "+ " + what
	}
	return "- " + what
}

// find is the domain of a name, UUID or number; nil: it does not run.
func (w *worker) find(want string) (*nodes.Domain, error) {
	doms, err := nodes.Find(w.xs, want)
	if err != nil || len(doms) == 0 {
		return nil, err
	}
	return &doms[0], nil
}

// target is the target as it is configured, with all others.
func (w *worker) target(ctx context.Context) (*config.Config, *config.Target, error) {
	text, err := w.api.Config(ctx)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := config.Parse(text.File, []byte(text.Text))
	if err != nil {
		return nil, nil, err
	}
	return cfg, cfg.Target(w.o.Target), nil
}

// export is what the target's xen: is to be: what it is already, or a new one.
func (w *worker) export(cfg *config.Config, t *config.Target) (x config.TargetXen, there bool, err error) {
	if x := t.Xen; x != nil {
		hint := fmt.Sprintf("; vtgt detach xen %s %s first, or use another target", x.Domain, t.Name)
		switch {
		case x.Toolstack:
			return *x, true, fmt.Errorf("target %s: another toolstack writes its nodes (toolstack: true); take the key out, or leave it to that one", t.Name)
		case !w.means(x.Domain):
			return *x, true, fmt.Errorf("target %s: belongs to domain %s already%s", t.Name, x.Domain, hint)
		case w.o.Device >= 0 && uint32(w.o.Device) != x.Device:
			return *x, true, fmt.Errorf("target %s: is device %d of the domain already%s", t.Name, x.Device, hint)
		case w.o.Type != "" && w.o.Type != x.BackendType():
			return *x, true, fmt.Errorf("target %s: its back end is of type %s already%s", t.Name, x.BackendType(), hint)
		}
		return *x, true, nil
	}
	x = config.TargetXen{Domain: w.o.Domain, Type: w.o.Type}
	if n, err := strconv.ParseUint(x.Domain, 10, 16); err == nil {
		// A number is another one after the next boot.
		switch {
		case w.dom == nil:
			return x, false, fmt.Errorf("there is no domain %s; xl list shows those that run", x.Domain)
		case uint32(n) != w.dom.ID: // its name is a number
		case w.dom.UUID != "":
			x.Domain = w.dom.UUID
		case w.dom.Name != "":
			x.Domain = w.dom.Name
		}
	}
	if w.o.Device >= 0 {
		x.Device = uint32(w.o.Device)
		return x, false, nil
	}
	for w.taken(cfg, x.Device) {
		x.Device++
	}
	return x, false, nil
}

// taken tells whether the domain has a device of that number.
func (w *worker) taken(cfg *config.Config, number uint32) bool {
	for i := range cfg.Targets {
		if x := cfg.Targets[i].Xen; x != nil && w.means(x.Domain) && x.Device == number {
			return true
		}
	}
	if w.dom == nil {
		return false
	}
	_, err := w.xs.Read(nodes.Device{Domain: w.dom.ID, Number: number}.FrontendPath())
	return err == nil
}

// means tells whether domain is the one that the options name.
func (w *worker) means(domain string) bool {
	return strings.EqualFold(domain, w.o.Domain) && (domain == w.o.Domain || isUUID(domain)) || w.dom != nil && w.dom.Is(domain)
}

func isUUID(s string) bool { _, ok := config.ParseUUID(s); return ok }

// subject is who an attachment is for.
func subject(x *config.TargetXen) string {
	if isUUID(x.Domain) {
		return strings.ToLower(x.Domain)
	}
	return x.Domain
}

// record is the journal's record for a target's export.
func (w *worker) record(x *config.TargetXen) api.Attachment {
	name := x.Domain
	if w.dom != nil && w.dom.Name != "" {
		name = w.dom.Name
	}
	return api.Attachment{Kind: Kind, Target: w.o.Target, LUN: api.AllLUNs, Subject: subject(x), Options: map[string]string{optName: name}}
}

func args(x *config.TargetXen) map[string]string {
	return map[string]string{argDomain: x.Domain, argDevice: fmt.Sprint(x.Device), argType: x.BackendType()}
}

// device is the device of step s in domain id.
func (w *worker) device(s *api.AttachmentStep, id uint32) nodes.Device {
	n, _ := strconv.ParseUint(s.Args[argDevice], 10, 32)
	return nodes.Device{Backend: w.self, Type: s.Args[argType], Domain: id, Number: uint32(n)}
}

// Attach puts a target into a domain. When it fails all is as it was.
func Attach(ctx context.Context, c *api.Client, o Options) error {
	w, err := open(c, o)
	if err != nil {
		return err
	}
	defer w.close()
	cfg, t, err := w.target(ctx)
	if err != nil {
		return err
	}
	if t == nil {
		return fmt.Errorf("target %s: is not there; vtgt get targets lists those there are", o.Target)
	}
	x, there, err := w.export(cfg, t)
	if err != nil {
		return err
	}
	r, err := w.e.Begin(ctx, w.record(&x))
	if err != nil {
		return err
	}
	if r.Resumed() && !there { // somebody has taken it out of the configuration
		if err := r.Forget(ctx, func(*api.AttachmentStep) bool { return true }); err != nil {
			return err
		}
	}
	s := api.AttachmentStep{Name: stepExport, Args: args(&x), Undo: map[string]string{}}
	if there && !r.Resumed() {
		s.Undo[undoBefore] = "true"
	}
	err = r.Do(ctx, s, func(ctx context.Context) error {
		if there {
			return nil
		}
		v := map[string]any{"domain": x.Domain, "device": x.Device}
		if x.Type != "" {
			v["type"] = x.Type
		}
		return w.edit(ctx, map[string]any{"xen": v})
	})
	if err == nil && w.dom != nil {
		err = w.offer(ctx, r, &x)
	}
	if err == nil {
		err = r.Finish(ctx)
	}
	if err != nil {
		return r.Abort(ctx, err)
	}
	if w.dom == nil {
		fmt.Fprintf(w.o.Out, "target %s is attached to domain %s, which does not run: it gets device %d when it comes up\n", o.Target, x.Domain, x.Device)
		return nil
	}
	return w.connected(ctx, &x)
}

func (w *worker) edit(ctx context.Context, values map[string]any) error {
	_, err := w.api.Edit(ctx, api.EditRequest{Force: w.o.Force, Ops: []api.EditOp{{Action: config.Modify, Kind: "target", Name: w.o.Target, Values: values}}})
	return err
}

// offer writes the device's nodes, and waits until the daemon serves them.
func (w *worker) offer(ctx context.Context, r *attach.Run, x *config.TargetXen) error {
	s := api.AttachmentStep{Name: stepNodes, Args: args(x)}
	n := w.device(&s, w.dom.ID)
	written := false
	write := func(ctx context.Context) error {
		written = true
		err := w.xs.Update(func(tx *xenstore.Tx) error { _, err := nodes.Write(tx, n); return err })
		var te *nodes.TakenError
		if errors.As(err, &te) {
			return fmt.Errorf("%w; choose another number with --device", err)
		}
		if err != nil {
			return err
		}
		if !poll(ctx, offerTime, func() bool {
			st, err := w.xs.Read(n.BackendPath() + "/state")
			return err == nil && st != nodes.Initialising
		}) {
			return fmt.Errorf("vtgt has not taken the device up within %v: %s", offerTime, w.reason(ctx))
		}
		return nil
	}
	if err := r.Do(ctx, s, write); err != nil || written {
		return err
	}
	return write(ctx) // what was done was done for another boot of the domain, perhaps
}

// reason is why the daemon does not serve the target's device.
func (w *worker) reason(ctx context.Context) string {
	es, err := w.api.Exports(context.WithoutCancel(ctx))
	if err != nil {
		return err.Error()
	}
	for _, e := range es {
		if e.Kind == Kind && e.Target == w.o.Target {
			if e.Reason != "" {
				return e.Reason
			}
			return "its state is " + e.State
		}
	}
	return "it does not know of it"
}

// connected waits for the domain, where that is wanted.
func (w *worker) connected(ctx context.Context, x *config.TargetXen) error {
	what := fmt.Sprintf("target %s is device %d of domain %s (%d)", w.o.Target, x.Device, x.Domain, w.dom.ID)
	n := nodes.Device{Backend: w.self, Type: x.BackendType(), Domain: w.dom.ID, Number: x.Device}
	up := func() bool { st, _ := w.xs.Read(n.FrontendPath() + "/state"); return st == nodes.Connected }
	switch {
	case up() || w.o.Wait > 0 && poll(ctx, w.o.Wait, up):
		fmt.Fprintf(w.o.Out, "%s, which is connected\n", what)
	case w.o.Wait > 0:
		return fmt.Errorf("%s, but it has not connected within %v: %s; is the module xen-scsifront loaded there? (vtgt detach xen %s %s takes it back)", what, w.o.Wait, w.reason(ctx), w.o.Domain, w.o.Target)
	default:
		fmt.Fprintf(w.o.Out, "%s, offered; vtgt get exports shows when it has connected\n", what)
	}
	return nil
}

// poll waits for f, at most for d.
func poll(ctx context.Context, d time.Duration, f func() bool) bool {
	end := time.NewTimer(d)
	defer end.Stop()
	t := time.NewTicker(pollTime)
	defer t.Stop()
	for !f() {
		select {
		case <-t.C:
		case <-end.C:
			return f()
		case <-ctx.Done():
			return false
		}
	}
	return true
}
