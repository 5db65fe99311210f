package state

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// unitFolder has a folder for each disk with what its initiators asked to be kept.
const unitFolder = "units"

// Memory keeps records of one disk: saved mode pages, reservations that persist, … It
// is the scsi package's Memory. Its methods may be called from any goroutine.
type Memory struct {
	dir string
	// stable: the folder is, as far as this process has seen to it.
	stable atomic.Bool
}

// Memory is that of the disk called name. It stays when the disk goes: one that comes
// back under its name knows its reservations again, as it has its identity.
func (d *Dir) Memory(name string) *Memory {
	return &Memory{dir: filepath.Join(d.path, unitFolder, name)}
}

// Place is the path of a file, not a record, among what is kept of the disk. Its folder
// is there.
func (m *Memory) Place(file string) (string, error) {
	if err := m.make(); err != nil {
		return "", folderError(m.dir, "cannot make the folder", err)
	}
	return filepath.Join(m.dir, file), nil
}

func (m *Memory) file(record string) File { return File(filepath.Join(m.dir, record+".json")) }

// Load reads record; nil where there is none.
func (m *Memory) Load(record string) ([]byte, error) {
	return m.file(record).load()
}

// Save replaces record by b, removes it where b is nil, for good when it returns nil.
func (m *Memory) Save(record string, b []byte) error {
	if b != nil {
		if err := m.make(); err != nil {
			return folderError(m.dir, "cannot make the folder", err)
		}
	}
	return m.file(record).Save(b)
}

// make makes the folder, with its parents for good: also where another process made it
// and ended before it was.
func (m *Memory) make() error {
	if m.stable.Load() {
		return nil
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return err
	}
	for _, d := range []string{filepath.Dir(m.dir), filepath.Dir(filepath.Dir(m.dir))} {
		if err := syncFolder(d); err != nil {
			return err
		}
	}
	m.stable.Store(true)
	return nil
}

// File is the path of one record of a Memory that lies somewhere else.
type File string

// Load reads the record; nil where there is none. A folder that is not there is an
// error: it may be on a file system that is not mounted.
func (f File) Load() ([]byte, error) {
	b, err := f.load()
	if b != nil || err != nil {
		return b, err
	}
	if _, err := os.Stat(filepath.Dir(string(f))); err != nil {
		return nil, folderError(string(f), "cannot read", err)
	}
	return nil, nil
}

func (f File) load() ([]byte, error) {
	b, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, folderError(string(f), "cannot read", err)
	}
	return b, nil
}

// Save replaces the record by b, removes it where b is nil, for good when it returns
// nil. When it fails it leaves what was there, as far as it can.
func (f File) Save(b []byte) error {
	was, err := f.load()
	if err != nil {
		return err
	}
	if b != nil && b[len(b)-1] != '\n' {
		b = append(b[:len(b):len(b)], '\n')
	}
	if err = f.replace(b); err == nil {
		return nil
	}
	// The last step may have failed, of which the others are seen.
	if is, rerr := f.load(); rerr == nil && (!bytes.Equal(is, was) || (is == nil) != (was == nil)) {
		_ = f.replace(was)
	}
	return err
}

func (f File) replace(b []byte) error {
	p := string(f)
	if b != nil {
		return writeFile(p, b)
	}
	err := os.Remove(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncFolder(filepath.Dir(p))
	}
	if err != nil {
		return folderError(p, "cannot remove", err)
	}
	return nil
}
