package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os/user"
	"slices"
	"strconv"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/daemon/state"
	"github.com/vtgt/vtgt/internal/unixsock"
)

// newExport is an export that prepare has made and that publish starts.
type newExport struct {
	exportName
	export
}

// export makes an export of t, which nobody can reach yet.
func (x *change) export(t *target, n exportName, ids *state.Prepared, bad *collect) {
	c := x.plan.is.Target(n.target)
	e := newExport{exportName: n}
	var err error
	if n.kind != kindISCSI {
		if e.ring = x.ringSpec(n, ids, bad); e.ring == nil {
			return
		}
		e.relID = e.ring.ports[0]
		e.obj, err = t.obj.newRing(e.ring, x.ownSocket(e.ring.socket))
		key := ".socket"
		if n.kind == kindXen {
			key = ""
		}
		err = place(err, x.plan.cfg, x.targetPath(n.target)+"."+n.kind+key)
	} else {
		if e.relID, err = ids.Port("iscsi:" + n.target); err == nil {
			e.obj, err = t.obj.newISCSI(c.ISCSI, e.relID)
		}
	}
	if err != nil {
		var de *Error
		if !errors.As(err, &de) {
			err = &Error{Code: CodeInternal, Object: "target " + n.target, Message: err.Error(), Err: err}
		}
		bad.add(err)
		return
	}
	x.newExports = append(x.newExports, e)
}

// ownSocket tells whether it is an export of ours that listens at path: that one ends in
// this change, for no two targets may have one socket.
func (x *change) ownSocket(path string) bool {
	for _, t := range x.plan.old.targets {
		for _, e := range t.exports {
			if e.ring != nil && path != "" && e.ring.socket == path {
				return true
			}
		}
	}
	return false
}

// targetPath is where a target stands in the new text.
func (x *change) targetPath(name string) string {
	for i := range x.plan.cfg.Targets {
		if x.plan.cfg.Targets[i].Name == name {
			return fmt.Sprintf("targets[%d]", i)
		}
	}
	return "targets"
}

// ringSpec finds what an export to a virtual machine is made of; nil: what is wrong is
// in bad.
func (x *change) ringSpec(n exportName, ids *state.Prepared, bad *collect) *ringSpec {
	name, kind := n.target, n.kind
	t := x.plan.is.Target(name)
	s := &ringSpec{kind: kind, target: name, ports: map[uint8]uint16{}}
	s.migratable = x.plan.is.Migratable(t)
	ok := true
	fail := func(key string, e *Error) {
		ok = false
		e.Object = "target " + name
		bad.add(place(e, x.plan.cfg, x.targetPath(name)+"."+kind+"."+key))
	}
	// Number 0 is always there: a bus without it looks dead to some drivers.
	vts := map[uint8]bool{0: true}
	var initiator string
	switch kind {
	case kindXen:
		// A domain's SCSI bus is one port's.
		s.xen, initiator = *t.Xen, t.Xen.Initiator
	case kindVIO:
		s.aix, initiator = t.VIO.AIX, t.VIO.Initiator
		s.listen(&t.VIO.TargetVHost, fail)
		for _, l := range t.LUNs {
			if id, _, ok := l.VIO(); ok {
				vts[id] = true
			}
		}
	default:
		initiator = t.VHost.Initiator
		s.listen(t.VHost, fail)
		for _, l := range t.LUNs {
			vts[l.Address.VHostTarget] = true
		}
	}
	if id, stated := config.ParseUUID(initiator); stated {
		s.initiator = id
	} else {
		s.initiator = ids.Initiator(kind + ":" + name)
	}
	for _, vt := range slices.Sorted(maps.Keys(vts)) {
		var err error
		if s.ports[vt], err = ids.Port(fmt.Sprintf("%s:%s:%d", kind, name, vt)); err != nil {
			fail("socket", &Error{Code: CodeInternal, Message: err.Error(), Err: err})
			break
		}
	}
	if !ok {
		return nil
	}
	return s
}

// listen says where the export listens, and who may connect.
func (s *ringSpec) listen(c *config.TargetVHost, fail func(key string, e *Error)) {
	s.socket = c.Socket
	s.access = unixsock.Access{Mode: fs.FileMode(c.Permission()), UID: -1, GID: -1}
	var err error
	if c.Owner != "" {
		if s.access.UID, err = userID(c.Owner); err != nil {
			fail("owner", &Error{Code: CodeNotFound, Message: "there is no user " + c.Owner, Hint: "make the user, or correct " + s.kind + ".owner", Err: err})
		}
	}
	if c.Group != "" {
		if s.access.GID, err = groupID(c.Group); err != nil {
			fail("group", &Error{Code: CodeNotFound, Message: "there is no group " + c.Group, Hint: "make the group, or correct " + s.kind + ".group", Err: err})
		}
	}
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err == nil {
		return strconv.Atoi(u.Uid)
	}
	if n, nerr := strconv.ParseUint(name, 10, 31); nerr == nil {
		return int(n), nil
	}
	return -1, err
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err == nil {
		return strconv.Atoi(g.Gid)
	}
	if n, nerr := strconv.ParseUint(name, 10, 31); nerr == nil {
		return int(n), nil
	}
	return -1, err
}
