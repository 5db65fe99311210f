package vsphere

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vtgt/vtgt/api"
	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/glob"
	"github.com/vtgt/vtgt/internal/secret"
)

// target is our side: what is to be attached.
type target struct {
	name, iqn string
	luns      []lun
	portals   []portal
	chap      *chap
}

func (t *target) object() string { return "target " + t.name }

// lun is a logical unit that the hosts are to see.
type lun struct {
	number uint16
	disk   string
	naa    string // "naa." and hexadecimal digits, as ESXi names it
	shared bool
}

type portal struct {
	host string
	port int32
}

func (p portal) String() string { return net.JoinHostPort(p.host, strconv.Itoa(int(p.port))) }

func parsePortal(s string) (portal, error) {
	h, n, err := net.SplitHostPort(s)
	if err != nil {
		h, n = strings.Trim(s, "[]"), "3260"
	}
	v, err := strconv.ParseUint(n, 10, 16)
	if err != nil || v == 0 || h == "" {
		return portal{}, fail("portal "+s, "write HOST:PORT, such as 192.0.2.7:3260", "is no address")
	}
	return portal{h, int32(v)}, nil
}

// chap is what hosts have to prove.
type chap struct {
	user, secret               string
	mutualUser, mutualSecret   string
	required                   bool // discovery wants it, too
	secretFile, mutualFileName string
}

// lookUp finds out what the daemon serves.
func lookUp(ctx context.Context, c *api.Client, o *Options) (*target, error) {
	t := &target{name: o.Target}
	ts, err := c.Targets(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(ts, func(x api.Target) bool { return x.Name == o.Target })
	if i < 0 {
		return nil, fail(t.object(), "vtgt get targets lists those there are", "is not there")
	}
	if t.iqn = ts[i].IQN; t.iqn == "" {
		return nil, fail(t.object(), "vtgt target set "+t.name+" --iqn NAME", "is not exported by iSCSI, and ESXi knows nothing else")
	}
	ds, err := c.Disks(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range ts[i].LUNs {
		if o.LUN != api.AllLUNs && int(l.LUN) != o.LUN {
			continue
		}
		j := slices.IndexFunc(ds, func(d api.Disk) bool { return d.Name == l.Disk })
		if j < 0 {
			continue
		}
		t.luns = append(t.luns, lun{l.LUN, l.Disk, "naa." + strings.ToLower(ds[j].NAA), ds[j].Shared || ds[j].ReadOnly || l.ReadOnly})
	}
	switch {
	case len(t.luns) == 0 && o.LUN != api.AllLUNs:
		return nil, fail(fmt.Sprintf("LUN %d of %s", o.LUN, t.object()), "vtgt get targets lists those there are", "is not there")
	case len(t.luns) == 0:
		return nil, fail(t.object(), "vtgt lun add "+t.name+" DISK", "has no LUN")
	case (o.Datastore != "" || o.RDM != "") && len(t.luns) > 1:
		return nil, fail(t.object(), "name the one that is meant with --lun", "has %d LUNs", len(t.luns))
	}
	if o.Datastore != "" || o.RDM != "" {
		o.LUN = int(t.luns[0].number)
	}
	if err := t.findPortals(ctx, c, o); err != nil {
		return nil, err
	}
	cfg, _, err := configOf(ctx, c, t.name)
	if err != nil {
		return nil, err
	}
	return t, t.findCHAP(cfg, o)
}

// configOf is the configuration in force, and target's revision.
func configOf(ctx context.Context, c *api.Client, target string) (*config.Config, uint64, error) {
	// The revision first: it must not be newer than the text.
	ts, err := c.Targets(ctx)
	if err != nil {
		return nil, 0, err
	}
	text, err := c.Config(ctx)
	if err != nil {
		return nil, 0, err
	}
	cfg, err := config.Parse(text.File, []byte(text.Text))
	if err != nil {
		return nil, 0, err
	}
	i := slices.IndexFunc(ts, func(t api.Target) bool { return t.Name == target })
	if i < 0 || iscsiOf(cfg, target) == nil {
		return nil, 0, fail("target "+target, "vtgt get targets lists those there are", "is not there, or not exported by iSCSI")
	}
	return cfg, ts[i].Revision, nil
}

func iscsiOf(cfg *config.Config, name string) *config.TargetISCSI {
	if t := cfg.Target(name); t != nil {
		return t.ISCSI
	}
	return nil
}

// findPortals takes those that are named, else all that other machines can reach.
func (t *target) findPortals(ctx context.Context, c *api.Client, o *Options) error {
	for _, s := range o.Portals {
		p, err := parsePortal(s)
		if err != nil {
			return err
		}
		t.portals = append(t.portals, p)
	}
	if len(t.portals) > 0 {
		return nil
	}
	es, err := c.Exports(ctx)
	if err != nil {
		return err
	}
	var listed []string
	for _, e := range es {
		if e.Kind != "iscsi" || e.Target != t.name {
			continue
		}
		for _, a := range e.Addresses {
			listed = append(listed, a)
			p, err := parsePortal(a)
			if err != nil {
				continue
			}
			ip, err := netip.ParseAddr(p.host)
			if err == nil && (ip.IsLoopback() || ip.IsUnspecified()) {
				continue
			}
			t.portals = append(t.portals, p)
		}
	}
	if len(t.portals) == 0 {
		return fail(t.object(), "name the address that the hosts reach it at with --portal HOST:PORT (and have vtgt listen there: vtgt portal add)",
			"it is not known where the hosts reach it; vtgt listens at %s", orNone(listed))
	}
	return nil
}

func orNone(s []string) string {
	if len(s) == 0 {
		return "no address"
	}
	return strings.Join(s, ", ")
}

// findCHAP reads what the hosts have to prove where the target asks for a proof.
func (t *target) findCHAP(cfg *config.Config, o *Options) error {
	users := iscsiOf(cfg, t.name).CHAP
	if len(users) == 0 {
		return nil
	}
	var names []string
	for _, u := range users {
		names = append(names, u.User)
	}
	i := 0
	if o.CHAPUser != "" {
		i = slices.Index(names, o.CHAPUser)
		if i < 0 {
			return fail(t.object(), "its users are: "+some(names), "has no CHAP user %s", o.CHAPUser)
		}
	} else if len(users) > 1 {
		return fail(t.object(), "name the one that the hosts are with --chap-user; there are: "+some(names), "has %d CHAP users", len(users))
	}
	u := users[i]
	x := &chap{user: u.User, secretFile: u.SecretFile}
	if o.CHAPSecretFile != "" {
		x.secretFile = o.CHAPSecretFile
	}
	for _, d := range cfg.ISCSI.Discovery {
		x.required = x.required || d.User == u.User
	}
	read := func(path string) (string, error) {
		path, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		b, err := secret.Read(path)
		if err != nil {
			return "", fail("CHAP user "+u.User, "run this as the user that may read it, or name a copy of mode 0600 with --chap-secret-file", "%v", err)
		}
		return string(b), nil
	}
	var err error
	if x.secret, err = read(x.secretFile); err != nil {
		return err
	}
	if len(x.secret) < 12 {
		return fail("CHAP user "+u.User, "write a longer one into "+x.secretFile+", and vtgt apply", "the secret has %d bytes; ESXi takes 12 and more", len(x.secret))
	}
	// ESXi asks for the target's proof only where it proves itself everywhere, in
	// discovery too.
	if u.Mutual.User != "" && x.required {
		x.mutualUser = u.Mutual.User
		if x.mutualSecret, err = read(u.Mutual.SecretFile); err != nil {
			return err
		}
	}
	t.chap = x
	return nil
}

// admitted tells whether an initiator may log in to the target.
func admitted(cfg *config.Config, target, iqn string) bool {
	l := iscsiOf(cfg, target).Initiators.Words()
	return len(l) > 0 && glob.Any(l, strings.ToLower(iqn))
}

// admit lets an initiator in, by a list that is made where there is none. made tells
// that the list would not be there without attachments.
func (t *target) admit(ctx context.Context, c *api.Client, iqn string, made *bool) error {
	iqn = strings.ToLower(iqn)
	for range 20 {
		cfg, rev, err := configOf(ctx, c, t.name)
		if err != nil {
			return err
		}
		if admitted(cfg, t.name, iqn) {
			return nil
		}
		x := iscsiOf(cfg, t.name)
		words := x.Initiators.Words()
		if *made = len(words) == 0; *made {
			if err := t.lockedOut(ctx, c, iqn); err != nil {
				return err
			}
		} else if *made, err = madeByUs(ctx, c, t.name, words); err != nil {
			return err
		}
		if err := setInitiators(ctx, c, t.name, append(words, iqn), rev); err == nil || !conflict(err) {
			return err
		}
	}
	return fail(t.object(), "try again", "it is being changed all the time")
}

// expel takes an initiator out of the list again. note is what is left, and why.
func expel(ctx context.Context, c *api.Client, target, iqn string, made bool) (note string, err error) {
	for range 20 {
		cfg, rev, err := configOf(ctx, c, target)
		if err != nil {
			return "", gone(err)
		}
		words := iscsiOf(cfg, target).Initiators.Words()
		rest := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == strings.ToLower(iqn) })
		if len(rest) == len(words) {
			return "", nil
		}
		if len(rest) == 0 && !made {
			return fmt.Sprintf("target %s keeps %s in its list of initiators: without it the list would be empty and let everybody in", target, iqn), nil
		}
		if err := setInitiators(ctx, c, target, rest, rev); err == nil || !conflict(err) {
			return "", err
		}
	}
	return "", fail("target "+target, "try again", "it is being changed all the time")
}

// gone makes success of a target that is not there any more.
func gone(err error) error {
	if e, ok := err.(*Error); ok && strings.Contains(e.Message, "is not there") {
		return nil
	}
	return err
}

func setInitiators(ctx context.Context, c *api.Client, target string, words []string, rev uint64) error {
	var v any
	if len(words) > 0 {
		l := make([]any, len(words))
		for i, w := range words {
			l[i] = w
		}
		v = l
	}
	_, err := c.Edit(ctx, api.EditRequest{Revision: rev, Ops: []api.EditOp{{Action: config.Modify, Kind: "target", Name: target,
		Values: map[string]any{"iscsi": map[string]any{"initiators": v}}}}})
	return err
}

func conflict(err error) bool {
	e, ok := err.(*api.Error)
	return ok && e.Code == api.CodeConflict
}

// lockedOut refuses to make a list where others are logged in that it would not name.
func (t *target) lockedOut(ctx context.Context, c *api.Client, iqn string) error {
	ss, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	var others []string
	for _, s := range ss {
		if s.Kind == "iscsi" && !s.Discovery && s.Target == t.name && !strings.EqualFold(s.Initiator, iqn) && !slices.Contains(others, s.Initiator) {
			others = append(others, s.Initiator)
		}
	}
	if len(others) > 0 {
		return fail(t.object(), "write iscsi.initiators with all who may log in into the configuration (docs/access.md), vtgt apply it, then again",
			"it lets every initiator in, and %s uses it: a list that names the host would lock out others", some(others))
	}
	return nil
}

// madeByUs tells whether a list is there only because of attachments.
func madeByUs(ctx context.Context, c *api.Client, target string, words []string) (bool, error) {
	as, err := c.Attachments(ctx)
	if err != nil {
		return false, err
	}
	made := false
	ours := map[string]bool{}
	for i := range as {
		for _, s := range as[i].Steps {
			if s.Name == stepACL && s.State != api.Undone && s.Args["target"] == target {
				ours[strings.ToLower(s.Args["iqn"])] = true
				made = made || s.Undo["made"] == "true"
			}
		}
	}
	for _, w := range words {
		made = made && ours[w]
	}
	return made, nil
}

// visible checks the masks of the LUNs.
func (t *target) visible(ctx context.Context, c *api.Client, iqn string) error {
	cfg, _, err := configOf(ctx, c, t.name)
	if err != nil {
		return err
	}
	for _, l := range cfg.Target(t.name).LUNs {
		if i := slices.IndexFunc(t.luns, func(w lun) bool { return w.number == l.LUN }); i >= 0 && l.Initiators != "" && !glob.Any(l.Initiators.Words(), strings.ToLower(iqn)) {
			return fail(fmt.Sprintf("LUN %d of %s", l.LUN, t.object()), "add the name to the LUN's initiators (docs/access.md) and vtgt apply", "is not shown to %s", iqn)
		}
	}
	return nil
}
