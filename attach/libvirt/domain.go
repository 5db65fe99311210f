package libvirt

import (
	"context"
	"fmt"
	"slices"
	"strings"

	lv "github.com/digitalocean/go-libvirt"

	"github.com/vtgt/vtgt/config"
)

// domain is a domain of a connection.
type domain struct {
	c    *conn
	d    lv.Domain
	uuid string
	name string
	// running: it has a QEMU (perhaps paused). persistent: it has a definition that
	// outlives that.
	running, persistent bool
	paused              bool
}

// ErrNoDomain: there is no such domain.
type noDomainError struct{ name, uri, hint string }

func (e *noDomainError) Error() string {
	return fmt.Sprintf("domain %s: is not there at %s; %s", e.name, e.uri, e.hint)
}

// domain finds a domain by name or UUID.
func (c *conn) domain(ctx context.Context, name string) (*domain, error) {
	var d lv.Domain
	err := c.do(ctx, "domain "+name, func(l *lv.Libvirt) (err error) {
		if id, ok := config.ParseUUID(strings.ToLower(name)); ok {
			if d, err = l.DomainLookupByUUID(lv.UUID(id)); err == nil || !is(err, lv.ErrNoDomain) {
				return err
			}
		}
		d, err = l.DomainLookupByName(name)
		return err
	})
	if is(err, lv.ErrNoDomain) {
		e := &noDomainError{name, c.uri, "virsh list --all shows those there are"}
		if all, lerr := c.domains(ctx); lerr == nil {
			switch {
			case len(all) == 0:
				e.hint = "there is none at all: name another libvirt with --connect"
			case len(all) <= 10:
				e.hint = "there are: " + strings.Join(all, ", ")
			}
		}
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	x := &domain{c: c, d: d, name: d.Name, uuid: config.FormatUUID(d.UUID)}
	return x, x.look(ctx)
}

func (c *conn) domains(ctx context.Context) (names []string, err error) {
	err = c.do(ctx, "domains", func(l *lv.Libvirt) error {
		ds, _, err := l.ConnectListAllDomains(1, 0)
		for _, d := range ds {
			names = append(names, d.Name)
		}
		return err
	})
	slices.Sort(names)
	return names, err
}

// look finds out how the domain is now.
func (d *domain) look(ctx context.Context) error {
	return d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) error {
		a, err := l.DomainIsActive(d.d)
		if err != nil {
			return err
		}
		p, err := l.DomainIsPersistent(d.d)
		if err != nil {
			return err
		}
		s, _, err := l.DomainGetState(d.d, 0)
		d.running, d.persistent, d.paused = a != 0, p != 0, lv.DomainState(s) == lv.DomainPaused
		return err
	})
}

// xml is the definition in force, or with config the one for the next start. With secure
// it has passwords, too: nothing of it may be shown or kept.
func (d *domain) xml(ctx context.Context, config, secure bool) (text string, err error) {
	var f lv.DomainXMLFlags
	if config {
		f |= lv.DomainXMLInactive
	}
	if secure {
		f |= lv.DomainXMLSecure
	}
	err = d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) (err error) {
		text, err = l.DomainGetXMLDesc(d.d, f)
		return err
	})
	return text, err
}

// define replaces the definition for the next start.
func (d *domain) define(ctx context.Context, text string) error {
	return d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) error {
		_, err := l.DomainDefineXMLFlags(text, 0)
		return err
	})
}

// impact is where a change goes.
func impact(config bool) uint32 {
	if config {
		return uint32(lv.DomainDeviceModifyConfig)
	}
	return uint32(lv.DomainDeviceModifyLive)
}

func (d *domain) attachDevice(ctx context.Context, xml string, config bool) error {
	return d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) error {
		return l.DomainAttachDeviceFlags(d.d, xml, impact(config))
	})
}

func (d *domain) detachDevice(ctx context.Context, xml string, config bool) error {
	return d.c.do(ctx, "domain "+d.name, func(l *lv.Libvirt) error {
		return l.DomainDetachDeviceFlags(d.d, xml, impact(config))
	})
}
