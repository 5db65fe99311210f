package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/vtgt/vtgt/config"
	"github.com/vtgt/vtgt/internal/glob"
	"github.com/vtgt/vtgt/internal/secret"
	"github.com/vtgt/vtgt/iscsi"
	"github.com/vtgt/vtgt/iscsi/chap"
	"github.com/vtgt/vtgt/scsi"
)

// access is who may use a target and its LUNs, with the secrets read. It is never
// changed once made.
type access struct {
	iscsi iscsi.Access
	masks map[uint16][]string // patterns by LUN, where a LUN has some
}

// accesses is the access of a whole configuration.
type accesses struct {
	targets   map[string]*access // by name
	discovery []chap.Account
	warnings  []string
}

// readAccess reads the secrets that cfg names. It is done at every Apply, so that
// secrets change by changing their files and applying the same text.
func readAccess(cfg *config.Config, bad *collect) *accesses {
	a := &accesses{targets: map[string]*access{}}
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		x := &access{masks: map[uint16][]string{}}
		a.targets[t.Name] = x
		for _, l := range t.LUNs {
			if l.Initiators != "" {
				x.masks[l.LUN] = l.Initiators.Words()
			}
		}
		c := t.ISCSI
		if c == nil {
			continue
		}
		x.iscsi = iscsi.Access{
			Initiators: c.Initiators.Words(),
			Redirect:   c.Redirect.Address, Permanent: c.Redirect.Permanent,
			NameOnly: c.PRIdentity == config.PRName, MaxConnections: uint16(c.MaxConnections),
		}
		for _, w := range c.Addresses.Words() {
			p, err := config.ParseAddress(w)
			if err != nil {
				bad.add(&Error{Code: CodeInvalid, Object: "target " + t.Name, Message: err.Error(), Err: err})
				continue
			}
			x.iscsi.Addresses = append(x.iscsi.Addresses, p)
		}
		x.iscsi.CHAP = a.accounts(cfg, "target "+t.Name, fmt.Sprintf("targets[%d].iscsi.chap", i), c.CHAP, bad)
	}
	a.discovery = a.accounts(cfg, "discovery", "iscsi.discovery.chap", cfg.ISCSI.Discovery, bad)
	return a
}

// accounts reads the secrets of users, which stand at path.
func (a *accesses) accounts(cfg *config.Config, object, path string, users []config.CHAP, bad *collect) []chap.Account {
	if len(users) == 0 {
		return nil
	}
	ok := true
	read := func(c config.Credential, path string) chap.Credential {
		b, err := secret.Read(c.SecretFile)
		if err != nil {
			ok = false
			bad.add(place(secretError(object, err), cfg, path+".secretFile"))
		} else if len(b) < chap.MinSecret {
			a.warnings = append(a.warnings, fmt.Sprintf("%s: the secret of CHAP user %q has %d bytes: initiators may refuse it, and it can be guessed (RFC 7143 asks for 96 random bits: 12 bytes and more)", object, c.User, len(b)))
		}
		return chap.Credential{User: c.User, Secret: chap.Secret(b)}
	}
	var out []chap.Account
	for i, u := range users {
		p := fmt.Sprintf("%s[%d]", path, i)
		acc := chap.Account{Credential: read(u.Credential, p)}
		if u.Mutual.User != "" {
			m := read(u.Mutual, p+".mutual")
			acc.Mutual = &m
		}
		out = append(out, acc)
	}
	if err := chap.Check(out); ok && err != nil {
		e := &Error{Code: CodeInvalid, Object: object, Message: err.Error(), Err: err}
		if errors.Is(err, chap.ErrSame) {
			e.Hint = "write another secret into the mutual secretFile: an initiator could send the target's own challenge back"
		}
		bad.add(place(e, cfg, path))
	}
	return out
}

func secretError(object string, err error) error {
	e := &Error{Code: CodeInvalid, Object: object, Message: err.Error(), Err: err}
	var se *secret.Error
	if errors.As(err, &se) {
		e.Message, e.Hint = "secret file "+se.Path+" "+se.Problem, se.Hint
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Code = CodeNotFound
	case errors.Is(err, fs.ErrPermission):
		e.Code = CodeDenied
	}
	return e
}

func (c *core) setDiscovery(users []chap.Account) { c.srv.SetDiscovery(users) }

// setAccess is targetObject's.
func (o *targetUnit) setAccess(a *access) {
	o.access.Store(a)
	// An export that starts later looks by itself.
	if e := o.iscsi.Load(); e != nil {
		_ = o.c.srv.SetAccess(e.cfg.IQN, &a.iscsi)
	}
}

// login is the access of iSCSI initiators.
func (o *targetUnit) login() *iscsi.Access {
	if a := o.access.Load(); a != nil {
		return &a.iscsi
	}
	return nil
}

// visible says which initiators see a LUN, as scsi.MapOptions wants it.
func (o *targetUnit) visible(lun uint16) func(scsi.InitiatorID) bool {
	a := o.access.Load()
	if a == nil || len(a.masks[lun]) == 0 {
		return nil
	}
	patterns := a.masks[lun]
	return func(id scsi.InitiatorID) bool { return masked(patterns, id.Name()) }
}

func masked(patterns []string, initiator string) bool {
	return glob.Any(patterns, strings.ToLower(initiator))
}

// sees tells whether a LUN is there for an initiator.
func sees(l config.LUN, initiator string) bool {
	return l.Initiators == "" || masked(l.Initiators.Words(), initiator)
}
