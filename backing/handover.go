package backing

import (
	"fmt"

	"github.com/vtgt/vtgt/internal/sys"
)

// Given is what a store's next process gets of it. The numbers are whatever the two
// processes agree on: descriptors, or their places in a table. -1: none.
type Given struct {
	// FD does the I/O and has the locks, Witness is the second description.
	FD      int `json:"fd"`
	Witness int `json:"witness"`
	// Latched: a sync has failed, and nothing may be written until Reopen.
	Latched bool `json:"latched,omitempty"`
}

// HandOver hands the descriptors of st to add and tells what add has made of them; st
// goes on with its own. add does not keep them. A store that has none, because it lives
// in the memory of this process, is an error that is ErrNotSupported.
func HandOver(st Store, add func(fd int) (int, error)) (Given, error) {
	switch s := st.(type) {
	case *nullStore:
		return Given{FD: -1, Witness: -1}, nil
	case *fileStore:
		return s.handOver(add)
	case *cryptStore:
		return HandOver(s.lower, add)
	case *intentStore:
		// The next process opens the log when it needs it: it is empty.
		return HandOver(s.data, add)
	}
	return Given{}, fmt.Errorf("%w: what is in the memory of a process ends with it", ErrNotSupported)
}

func (s *fileStore) handOver(add func(fd int) (int, error)) (g Given, err error) {
	d := s.acquire()
	defer d.release(false)
	g.Latched = s.latched.Load()
	if g.FD, err = add(d.fd); err == nil {
		g.Witness, err = add(d.witness)
	}
	return g, err
}

// takeOver makes a description of what was given.
func (s *fileStore) takeOver(g *Given) (*desc, error) {
	d := &desc{fd: g.FD, witness: g.Witness}
	d.refs.Store(1)
	if err := sys.Fstat(d.fd, &d.st); err != nil {
		return nil, s.problem(err, "", "fstat of what was handed over: %v", err)
	}
	if err := s.checkKind(&d.st); err != nil {
		return nil, err
	}
	s.latched.Store(g.Latched)
	if s.migratable {
		// Who goes on holds it anew; the descriptions are shared, so nobody slips in
		// before the process that gave them has ended.
		s.away = true
	}
	return d, nil
}
