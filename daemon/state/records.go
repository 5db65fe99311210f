package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// attachmentFolder has a file for each attachment.
const attachmentFolder = "attachments"

// Records are named records of one kind, a file each. Methods may be called from any
// goroutine; changes of one record are the caller's to put in order.
type Records struct{ m *Memory }

// Attachments are the journals of attachments, by their identifiers.
func (d *Dir) Attachments() *Records {
	return &Records{&Memory{dir: filepath.Join(d.path, attachmentFolder)}}
}

// Names lists the records.
func (r *Records) Names() ([]string, error) {
	es, err := os.ReadDir(r.m.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, folderError(r.m.dir, "cannot read", err)
	}
	var names []string
	for _, e := range es {
		if n, ok := strings.CutSuffix(e.Name(), ".json"); ok && !strings.HasPrefix(n, ".") {
			names = append(names, n)
		}
	}
	return names, nil
}

// Path is the file of a record.
func (r *Records) Path(name string) string { return string(r.m.file(name)) }

// Load reads a record; nil where there is none.
func (r *Records) Load(name string) ([]byte, error) { return r.m.Load(name) }

// Save replaces a record, removes it where b is nil, for good when it returns nil.
func (r *Records) Save(name string, b []byte) error { return r.m.Save(name, b) }
