package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// unitFolder has a folder for each disk with what its initiators asked to be kept.
const unitFolder = "units"

// Memory keeps records of one disk: saved mode pages, reservations that persist, … It
// is the scsi package's Memory. Its methods may be called from any goroutine.
type Memory struct{ dir string }

// Memory is that of the disk called name. It stays when the disk goes: one that comes
// back under its name knows its reservations again, as it has its identity.
func (d *Dir) Memory(name string) *Memory {
	return &Memory{dir: filepath.Join(d.path, unitFolder, name)}
}

func (m *Memory) file(record string) string { return filepath.Join(m.dir, record+".json") }

// Load reads record; nil where there is none.
func (m *Memory) Load(record string) ([]byte, error) {
	b, err := os.ReadFile(m.file(record))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, folderError(m.file(record), "cannot read", err)
	}
	return b, nil
}

// Save replaces record by b, removes it where b is nil, for good when it returns nil.
func (m *Memory) Save(record string, b []byte) error {
	p := m.file(record)
	if b == nil {
		err := os.Remove(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = syncFolder(m.dir)
		}
		if err != nil {
			return folderError(p, "cannot remove", err)
		}
		return nil
	}
	if err := m.make(); err != nil {
		return folderError(m.dir, "cannot make the folder", err)
	}
	return writeFile(p, append(b[:len(b):len(b)], '\n'))
}

// make makes the folder, with its parents for good.
func (m *Memory) make() error {
	if _, err := os.Stat(m.dir); err == nil {
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
	return nil
}
