package xenstore

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/vtgt/vtgt/xen/xenstore/wire"
)

// Tx is a transaction: what is read in it is of one moment, and what is written in it
// appears at once or not at all. The one that a Conn embeds is none: each operation
// stands for itself.
type Tx struct {
	c  *Conn
	id uint32
}

// Perm is an entry of a node's permissions; see package wire.
type Perm = wire.Perm

// attempts bounds how often Update tries. Conflicts come from changes by others in the
// microseconds between begin and end, a guest's among them.
const attempts = 64

// Update runs f in a transaction and ends it, and does so again where another change
// was faster (EAGAIN): f must be fit for that. An error of f discards the transaction.
func (c *Conn) Update(f func(*Tx) error) error {
	for n := range attempts {
		if n > 8 {
			time.Sleep(time.Duration(n) * time.Millisecond)
		}
		err := c.attempt(f)
		if !errors.Is(err, ErrAgain) {
			return err
		}
	}
	return ErrBusy
}

func (c *Conn) attempt(f func(*Tx) error) error {
	b, err := c.do(wire.TransactionStart, 0, "", wire.Strings(""))
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(strings.TrimSuffix(string(b), "\x00"), 10, 32)
	if err != nil || id == 0 {
		return fmt.Errorf("xenstore: transaction %q", b)
	}
	tx := &Tx{c, uint32(id)}
	if err := f(tx); err != nil {
		_, _ = c.do(wire.TransactionEnd, tx.id, "", wire.Strings("F"))
		return err
	}
	_, err = c.do(wire.TransactionEnd, tx.id, "", wire.Strings("T"))
	return err
}

func (t *Tx) do(op wire.Type, path string, payload []byte) ([]byte, error) {
	if err := wire.CheckPath(path); err != nil {
		return nil, err
	}
	return t.c.do(op, t.id, path, payload)
}

// Read is the value of the node at path.
func (t *Tx) Read(path string) (string, error) {
	b, err := t.do(wire.Read, path, wire.Strings(path))
	return string(b), err
}

// Write sets it, and makes the node and its parents where they are missing, with the
// permissions of the nearest parent that is there.
func (t *Tx) Write(path, value string) error {
	_, err := t.do(wire.Write, path, wire.Pair(path, value))
	return err
}

// Mkdir makes the node, empty, unless it is there.
func (t *Tx) Mkdir(path string) error {
	_, err := t.do(wire.Mkdir, path, wire.Strings(path))
	return err
}

// Remove removes the node and all below it.
func (t *Tx) Remove(path string) error {
	_, err := t.do(wire.Rm, path, wire.Strings(path))
	return err
}

// List is the names of the node's children. A list that does not fit in one message
// comes in parts, from the beginning again where the node changes meanwhile.
func (t *Tx) List(path string) ([]string, error) {
	b, err := t.do(wire.Directory, path, wire.Strings(path))
	if err == nil {
		return wire.ParseStrings(b)
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != "E2BIG" {
		return nil, err
	}
	for range attempts {
		l, ok, err := t.parts(path)
		if ok || err != nil {
			return l, err
		}
	}
	return nil, ErrBusy
}

// parts is List by parts; false: the node has changed.
func (t *Tx) parts(path string) (l []string, ok bool, err error) {
	gen, off := "", 0
	for {
		b, err := t.do(wire.DirectoryPart, path, wire.Strings(path, strconv.Itoa(off)))
		if err != nil {
			return nil, false, err
		}
		g, names, last, err := wire.ParsePart(b)
		if err != nil {
			return nil, false, err
		}
		if off > 0 && g != gen {
			return nil, false, nil
		}
		gen = g
		for _, n := range names {
			off += len(n) + 1
		}
		l = append(l, names...)
		if last {
			return l, true, nil
		}
		if len(names) == 0 {
			return nil, false, wire.ErrForm // no progress
		}
	}
}

// Perms are the node's permissions, the owner's entry first.
func (t *Tx) Perms(path string) ([]Perm, error) {
	b, err := t.do(wire.GetPerms, path, wire.Strings(path))
	if err != nil {
		return nil, err
	}
	l, err := wire.ParseStrings(b)
	if err != nil {
		return nil, err
	}
	ps := make([]Perm, len(l))
	for i, s := range l {
		if ps[i], err = wire.ParsePerm(s); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

// SetPerms sets them, the owner's entry first.
func (t *Tx) SetPerms(path string, ps ...Perm) error {
	l := []string{path}
	for _, p := range ps {
		l = append(l, p.String())
	}
	_, err := t.do(wire.SetPerms, path, wire.Strings(l...))
	return err
}

// DomainPath is where domain domid's nodes lie: /local/domain/N.
func (c *Conn) DomainPath(domid uint32) (string, error) {
	b, err := c.do(wire.GetDomainPath, 0, "", wire.Strings(strconv.FormatUint(uint64(domid), 10)))
	return strings.TrimSuffix(string(b), "\x00"), err
}

// Self is the number of the domain that asks, 0 where nobody says another.
func (c *Conn) Self() (uint32, error) {
	b, err := c.do(wire.Read, 0, "domid", wire.Strings("domid")) // below the domain's own folder
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(b), 10, 16)
	return uint32(n), err
}

// Introduced tells whether xenstored knows domain domid: false once it is dead.
func (c *Conn) Introduced(domid uint32) (bool, error) {
	b, err := c.do(wire.IsDomainIntroduced, 0, "", wire.Strings(strconv.FormatUint(uint64(domid), 10)))
	return strings.TrimSuffix(string(b), "\x00") == "T", err
}
