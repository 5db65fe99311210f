package backing

import "github.com/vtgt/vtgt/internal/sys"

// Space is the room that a store takes and may still take, in bytes.
type Space struct {
	// Used is what the store takes of its file system.
	Used int64
	// Available is what the file system has left, for whoever comes first; Total is
	// its size.
	Available, Total int64
}

// SpaceOf asks the file system below st. ErrNotSupported where there is none: a
// device does not tell what is left of what backs it. Any goroutine but a loop's:
// it sleeps.
func SpaceOf(st Store) (Space, error) {
	if s, ok := st.(interface{ Space() (Space, error) }); ok {
		return s.Space()
	}
	return Space{}, ErrNotSupported
}

// Space is what SpaceOf tells.
func (s *fileStore) Space() (Space, error) {
	if s.block {
		return Space{}, ErrNotSupported
	}
	d, err := s.open()
	if err != nil {
		return Space{}, err
	}
	defer d.release(false)
	var st sys.FileStat
	if err := sys.Fstat(d.fd, &st); err != nil {
		return Space{}, err
	}
	total, avail, err := sys.FileSystemSpace(d.fd)
	if err != nil {
		return Space{}, err
	}
	return Space{Used: st.Allocated, Available: avail, Total: total}, nil
}
