package daemon

import (
	"errors"
	"io/fs"
	"slices"

	"github.com/vtgt/vtgt/daemon/state"
)

// Kept is an earlier configuration in the state folder.
type Kept = state.Kept

// History lists the earlier configurations, latest first.
func (d *Daemon) History() ([]Kept, error) {
	ks, err := d.st.Kept()
	if err != nil {
		return nil, stateError(err)
	}
	slices.Reverse(ks)
	return ks, nil
}

// ConfigAt is the configuration that was in force at a revision.
func (d *Daemon) ConfigAt(revision uint64) (*ConfigText, error) {
	if g := d.cur.Load(); g.revision == revision {
		c := d.Config()
		return &c, nil
	}
	b, err := d.st.ReadKept(revision)
	if errors.Is(err, fs.ErrNotExist) {
		es := AsErrors(stateError(err))
		es[0].Code = CodeNotFound
		return nil, es
	}
	if err != nil {
		return nil, stateError(err)
	}
	return &ConfigText{File: d.served, Revision: revision, Text: string(b)}, nil
}
