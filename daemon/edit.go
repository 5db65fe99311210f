package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vtgt/vtgt/config"
)

// Edit is a change of single objects: of what runs, and of the served file's text.
type Edit struct {
	// Ops are done together or not at all. To remove what is not there is
	// nothing to do, and no error.
	Ops []config.Op
	// DryRun changes nothing; Force ends what initiators use, and cuts stores.
	DryRun, Force bool
	// Revision is what the object of the only Op must be at, or, where it adds
	// something, the whole configuration; 0: any.
	Revision uint64
}

// Edit changes single objects. Comments, order and layout of the served file
// survive; its earlier version is kept in the state folder. Where the file cannot be
// written, or holds something else than what is in force, nothing is changed.
func (d *Daemon) Edit(e Edit) (*Result, error) {
	d.write.Lock()
	defer d.write.Unlock()
	if d.closed || d.closing.Load() {
		return nil, errClosing()
	}
	g := d.cur.Load()
	ops, err := d.check(g, &e)
	if err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return &Result{DryRun: e.DryRun, Revision: g.revision, Changes: []config.Change{}, Warnings: []string{}}, nil
	}
	text, cfg, err := d.editor.EditConfig(g.file, g.text, ops...)
	if err != nil {
		return nil, about(err, ops)
	}
	r, err := d.change(g.file, text, cfg, ApplyOptions{DryRun: e.DryRun, Force: e.Force, Save: true}, true)
	if err != nil {
		return nil, about(err, ops)
	}
	return r, nil
}

// check refuses what needs no look at the text, and drops what is done already.
func (d *Daemon) check(g *graph, e *Edit) ([]config.Op, error) {
	x := g.cfg.Index()
	var out []config.Op
	for i := range e.Ops {
		o := e.Ops[i]
		object := o.Object()
		there := false
		switch o.Kind {
		case "disk":
			there = x.Disk(o.Name) != nil
		case "target":
			there = x.Target(o.Name) != nil
		case "lun":
			t := x.Target(o.Name)
			if t == nil && o.Action != config.Remove {
				return nil, notThere("target "+o.Name, "vtgt get targets lists those there are")
			}
			there = t != nil && lunOf(t, o.LUN) != nil
		case "portal":
			there = slices.Contains(g.cfg.ISCSI.Portals, o.Name)
		default:
			return nil, &Error{Code: CodeInvalid, Object: object, Message: "objects of this kind cannot be changed", Hint: "kinds are disk, target, lun and portal"}
		}
		if e.Revision != 0 {
			have := g.revision
			if o.Action != config.Add {
				have = g.revs[object]
			}
			if have != e.Revision {
				return nil, revisionError(object, have, e.Revision)
			}
		}
		switch {
		case o.Action == config.Add && there:
			return nil, &Error{Code: CodeExists, Object: object, Message: "is there already", Hint: "choose another name, or change it: vtgt " + o.Kind + " set"}
		case o.Action == config.Modify && !there:
			return nil, notThere(object, fmt.Sprintf("vtgt get %ss lists those there are", map[string]string{"disk": "disk", "target": "target", "lun": "target", "portal": "export"}[o.Kind]))
		case o.Action == config.Remove && !there:
			continue
		}
		if o.Action == config.Remove && o.Kind == "disk" {
			more, err := d.freeDisk(g, o.Name, e.Force)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
		out = append(out, o)
	}
	return out, nil
}

func notThere(object, hint string) error {
	return &Error{Code: CodeNotFound, Object: object, Message: "is not there", Hint: hint}
}

// freeDisk takes a disk out of its targets, by force.
func (d *Daemon) freeDisk(g *graph, name string, force bool) (ops []config.Op, err error) {
	var at, who []string
	var ss []Session
	for i := range g.cfg.Targets {
		t := &g.cfg.Targets[i]
		for _, l := range t.LUNs {
			if l.Disk != name {
				continue
			}
			if ss == nil {
				ss = d.eng.sessions()
			}
			ops = append(ops, config.Op{Action: config.Remove, Kind: "lun", Name: t.Name, LUN: l.LUN})
			at = append(at, fmt.Sprintf("LUN %d of target %s", l.LUN, t.Name))
			who = append(who, users(ss, t.Name, l)...)
		}
	}
	if len(at) == 0 || force {
		return ops, nil
	}
	msg := "is in use: it is " + enumerate(at)
	if len(who) > 0 {
		msg += ", used by " + enumerate(who)
	}
	return nil, &Error{Code: CodeBusy, Object: "disk " + name, Message: msg,
		Hint: "take it out first (vtgt lun rm), or use --force: commands under way are aborted"}
}

// enumerate joins a few and counts the rest.
func enumerate(s []string) string {
	const most = 10
	if len(s) > most {
		return strings.Join(s[:most], ", ") + fmt.Sprintf(" and %d more", len(s)-most)
	}
	return strings.Join(s, ", ")
}

// users names the nexuses that see LUN l of a target: initiator port, address,
// session.
func users(sessions []Session, target string, l config.LUN) []string {
	var out []string
	for i := range sessions {
		if s := &sessions[i]; s.Target == target && !s.Discovery && s.sees(l) {
			out = append(out, s.user())
		}
	}
	slices.Sort(out)
	return out
}

// sees tells whether LUN l of its target is there for the session.
func (s *Session) sees(l config.LUN) bool {
	if !sees(l, s.Initiator) {
		return false
	}
	switch s.Kind {
	case kindVHost:
		return s.VHostTarget == int(l.Address.VHostTarget)
	case kindVIO:
		id, _, ok := l.VIO()
		return ok && s.VIOID == int(id)
	}
	return true
}

func (s *Session) user() string {
	if s.Kind != kindISCSI && len(s.Connections) > 0 {
		return fmt.Sprintf("the virtual machine at %s (%s)", s.Connections[0].Local, s.Connections[0].Remote)
	}
	var from []string
	for _, c := range s.Connections {
		from = append(from, c.Remote)
	}
	return fmt.Sprintf("%s,i,0x%s from %s (session %d)", s.Initiator, s.ISID, strings.Join(from, " and "), s.TSIH)
}

// portalUsers names the sessions that came in by a portal that is bound to addr.
func portalUsers(sessions []Session, addr string) []string {
	p, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil
	}
	var out []string
	for i := range sessions {
		s := &sessions[i]
		for _, c := range s.Connections {
			l, err := netip.ParseAddrPort(c.Local)
			if err == nil && l.Port() == p.Port() && (p.Addr().IsUnspecified() || p.Addr().Unmap() == l.Addr().Unmap()) {
				out = append(out, fmt.Sprintf("%s at target %s", s.user(), s.Target))
				break
			}
		}
	}
	return out
}

// about names the object in errors that name a place of a text nobody has seen.
func about(err error, ops []config.Op) error {
	es := AsErrors(err)
	o := &ops[len(ops)-1]
	for _, e := range es {
		var ce *config.Error
		if !errors.As(e.Err, &ce) {
			continue
		}
		e.Object = o.Object()
		// "disks[3].size: …" is about this object's size.
		for _, word := range []string{ce.Path, strings.TrimSuffix(ce.Path, "."+lastKey(ce.Path))} {
			if word != "" && strings.Contains(word, "[") {
				e.Message = strings.ReplaceAll(e.Message, word, map[bool]string{true: lastKey(ce.Path), false: o.Object()}[word == ce.Path])
			}
		}
		e.Message = strings.TrimPrefix(e.Message, o.Object()+": ")
		e.Message = strings.TrimPrefix(e.Message, fmt.Sprintf("%s %q: ", o.Kind, o.Name))
	}
	return es
}

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// ParseValues reads the JSON text of an object's keys.
func ParseValues(b []byte) (map[string]any, error) {
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	v := map[string]any{}
	if err := dec.Decode(&v); err != nil {
		return nil, &Error{Code: CodeInvalid, Object: "body", Message: "is not a JSON object: " + err.Error(), Hint: "send keys of the configuration file with their values"}
	}
	if dec.More() {
		return nil, &Error{Code: CodeInvalid, Object: "body", Message: "holds more than one JSON value", Hint: "send one object"}
	}
	return v, nil
}

// Resume re-opens the store of a disk that refuses writes after a failed sync, and
// lets a disk that stopped at an error go on.
func (d *Daemon) Resume(name string) (*DiskStatus, error) {
	// Not under d.write: a store that hangs is not to hold up other changes. One
	// that is closed meanwhile says so.
	if d.closing.Load() {
		return nil, errClosing()
	}
	k := d.cur.Load().disks[name]
	if k == nil {
		return nil, notThere("disk "+name, "vtgt get disks lists those there are")
	}
	if err := k.obj.resume(); err != nil {
		return nil, err
	}
	ks := d.Disks()
	for i := range ks {
		if ks[i].Name == name {
			return &ks[i], nil
		}
	}
	return nil, notThere("disk "+name, "vtgt get disks lists those there are")
}
