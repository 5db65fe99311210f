package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	revisionFile  = "revision.json"
	versionFolder = "versions"
	// MaxVersions is how many earlier configurations are kept.
	MaxVersions = 50
)

// Revision is the number of the configuration in force, and what it was.
type Revision struct {
	Version  int    `json:"version"`
	Revision uint64 `json:"revision"`
	// Sum is the SHA-256 of the configuration's text, hexadecimal.
	Sum string `json:"sum"`
}

// Revision reads what SetRevision stored, zero where there is nothing (readable): a
// revision only has to differ from those that clients hold.
func (d *Dir) Revision() (r Revision) {
	b, err := os.ReadFile(filepath.Join(d.path, revisionFile))
	if err != nil || json.Unmarshal(b, &r) != nil || r.Version != Format {
		return Revision{}
	}
	return r
}

// SetRevision stores the revision; it is stable when it returns nil.
func (d *Dir) SetRevision(r Revision) error {
	r.Version = Format
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(d.path, revisionFile), append(b, '\n'))
}

// Kept is an earlier configuration.
type Kept struct {
	// Revision at which it was in force.
	Revision uint64 `json:"revision"`
	// Until is when another one took its place.
	Until time.Time `json:"until"`
	Size  int64     `json:"size"` // bytes
	// Unapplied: it was in the file, but never in force.
	Unapplied bool `json:"unapplied,omitempty"`
	file      string
}

const versionTime = "20060102T150405.000Z"

// Keep stores an earlier configuration; the oldest beyond MaxVersions go.
func (d *Dir) Keep(revision uint64, unapplied bool, text []byte) error {
	dir := filepath.Join(d.path, versionFolder)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return folderError(dir, "cannot make the folder for earlier configurations", err)
	}
	kind := ""
	if unapplied {
		kind = "-unapplied"
	}
	name := fmt.Sprintf("%010d-%s%s.yaml", revision, time.Now().UTC().Format(versionTime), kind)
	if err := writeFile(filepath.Join(dir, name), text); err != nil {
		return err
	}
	ks, err := d.Kept()
	if err != nil {
		return err
	}
	for len(ks) > MaxVersions {
		_ = os.Remove(filepath.Join(dir, ks[0].file))
		ks = ks[1:]
	}
	return nil
}

// Kept lists the earlier configurations, oldest first.
func (d *Dir) Kept() ([]Kept, error) {
	dir := filepath.Join(d.path, versionFolder)
	es, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, folderError(dir, "cannot read", err)
	}
	ks := []Kept{}
	for _, e := range es {
		k := Kept{file: e.Name()}
		base, ok := strings.CutSuffix(e.Name(), ".yaml")
		if !ok {
			continue
		}
		base, k.Unapplied = strings.CutSuffix(base, "-unapplied")
		rev, at, _ := strings.Cut(base, "-")
		if k.Revision, err = strconv.ParseUint(rev, 10, 64); err != nil {
			continue
		}
		if k.Until, err = time.Parse(versionTime, at); err != nil {
			continue
		}
		if fi, err := e.Info(); err == nil {
			k.Size = fi.Size()
		}
		ks = append(ks, k)
	}
	slices.SortStableFunc(ks, func(a, b Kept) int { return a.Until.Compare(b.Until) })
	return ks, nil
}

// ReadKept is the text of the configuration that was in force at a revision, the
// latest one where there are several.
func (d *Dir) ReadKept(revision uint64) ([]byte, error) {
	ks, err := d.Kept()
	if err != nil {
		return nil, err
	}
	for i := len(ks) - 1; i >= 0; i-- {
		if ks[i].Revision == revision && !ks[i].Unapplied {
			p := filepath.Join(d.path, versionFolder, ks[i].file)
			b, err := os.ReadFile(p)
			if err != nil {
				return nil, folderError(p, "cannot read", err)
			}
			return b, nil
		}
	}
	return nil, &Error{Path: filepath.Join(d.path, versionFolder), Msg: fmt.Sprintf("the configuration of revision %d is not kept", revision), Err: fs.ErrNotExist,
		Hint: "vtgt get history lists those that are"}
}
