package state

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"

	"github.com/vtgt/vtgt/config"
)

// Disk is what initiators know a disk by.
type Disk struct {
	// Serial is the unit serial number (VPD page 80h).
	Serial string `json:"serial"`
	// NAA is a designator of type NAA 3h, locally assigned, 16 hexadecimal
	// digits (SPC-4 §7.8.6.6.4).
	NAA string `json:"naa"`
}

// NAA64 is the designator as a number; its highest nibble is 3.
func (d Disk) NAA64() uint64 {
	b, err := hex.DecodeString(d.NAA)
	if err != nil || len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// file is the content of identities.json. Entries are never removed: a disk or
// export that comes back under its name has its old identity.
type file struct {
	Version int             `json:"version"`
	Disks   map[string]Disk `json:"disks"`
	// Ports are relative target port identifiers (SPC-4 §3.1.122) by export,
	// unique in the whole daemon, because a disk may be seen through several
	// targets.
	Ports map[string]uint16 `json:"ports"`
	// Groups are target port group identifiers by target, unique for the same
	// reason.
	Groups map[string]uint16 `json:"groups,omitempty"`
	// Initiators are the initiator port identifiers, UUIDs, of what reaches a
	// target by a ring, by export.
	Initiators map[string]string `json:"initiators,omitempty"`
}

// Identities makes identities once and keeps them.
type Identities struct {
	path string
	mu   sync.Mutex
	f    file
	used map[uint16]bool
}

func loadIdentities(path string) (*Identities, error) {
	s := &Identities{path: path, used: map[uint16]bool{}}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.f = newFile()
		return s, nil
	case err != nil:
		return nil, folderError(path, "cannot read", err)
	}
	if s.f, err = parseIdentities(b); err != nil {
		return nil, &Error{Path: path, Msg: "is damaged", Err: err,
			Hint: "restore it from a backup, or correct it; without it every disk would get a new identity and initiators would not know it again"}
	}
	for _, id := range s.f.Ports {
		s.used[id] = true
	}
	return s, nil
}

func newFile() file {
	return file{Version: Format, Disks: map[string]Disk{}, Ports: map[string]uint16{}, Groups: map[string]uint16{}, Initiators: map[string]string{}}
}

func parseIdentities(b []byte) (file, error) {
	var f file
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return f, err
	}
	if f.Version != Format {
		return f, fmt.Errorf("version %d is not known", f.Version)
	}
	if f.Disks == nil {
		f.Disks = map[string]Disk{}
	}
	if f.Ports == nil {
		f.Ports = map[string]uint16{}
	}
	if f.Groups == nil {
		f.Groups = map[string]uint16{}
	}
	if f.Initiators == nil {
		f.Initiators = map[string]string{}
	}
	for name, s := range f.Initiators {
		if _, ok := config.ParseUUID(s); !ok {
			return f, fmt.Errorf("the initiator of %q is not a UUID", name)
		}
	}
	for name, d := range f.Disks {
		if d.Serial == "" || d.NAA64()>>60 != 3 {
			return f, fmt.Errorf("disk %q has no proper identity", name)
		}
	}
	for what, m := range map[string]map[string]uint16{"port": f.Ports, "port group": f.Groups} {
		seen := map[uint16]string{}
		for name, id := range m {
			if other, dup := seen[id]; dup || id == 0 {
				return f, fmt.Errorf("%s %q has the identifier %d of %q", what, name, id, other)
			}
			seen[id] = name
		}
	}
	return f, nil
}

// Prepared are identities that were looked up or made but not stored yet.
type Prepared struct {
	s          *Identities
	disks      map[string]Disk
	ports      map[string]uint16
	groups     map[string]uint16
	initiators map[string]string
}

// Prepare begins a set of look-ups. What they make is stored by Commit, and
// forgotten without it.
func (s *Identities) Prepare() *Prepared {
	return &Prepared{s: s, disks: map[string]Disk{}, ports: map[string]uint16{}, groups: map[string]uint16{}, initiators: map[string]string{}}
}

// Known tells whether the disk called name was served before.
func (p *Prepared) Known(name string) bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	_, ok := p.s.f.Disks[name]
	return ok
}

// Disk is the identity of the disk called name, made at first use.
func (p *Prepared) Disk(name string) Disk {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if d, ok := p.s.f.Disks[name]; ok {
		return d
	}
	if d, ok := p.disks[name]; ok {
		return d
	}
	// Random, not derived from the name: two hosts that call a disk root1 must
	// not look like two paths to one disk.
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	b[0] = b[0]&0x0f | 0x30
	d := Disk{NAA: hex.EncodeToString(b[:])}
	rand.Read(b[:])
	d.Serial = hex.EncodeToString(b[:])
	p.disks[name] = d
	return d
}

// ErrNoPort: every relative target port identifier is given away.
var ErrNoPort = errors.New("all 65535 relative target port identifiers are given away; remove unused ports from identities.json in the state folder while vtgt is stopped")

// Port is the relative target port identifier of the export called name (such as
// "iscsi:vm1"), made at first use, never 0.
func (p *Prepared) Port(name string) (uint16, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if id, ok := p.s.f.Ports[name]; ok {
		return id, nil
	}
	if id, ok := p.ports[name]; ok {
		return id, nil
	}
	// One writer at a time applies configurations, so what another Prepared
	// has in hand does not matter here.
	taken := make(map[uint16]bool, len(p.ports))
	for _, id := range p.ports {
		taken[id] = true
	}
	for id := uint16(1); id != 0; id++ {
		if !p.s.used[id] && !taken[id] {
			p.ports[name] = id
			return id, nil
		}
	}
	return 0, ErrNoPort
}

// ErrNoGroup: every target port group identifier is given away.
var ErrNoGroup = errors.New("all 65535 target port group identifiers are given away; remove unused groups from identities.json in the state folder while vtgt is stopped")

// Group is the target port group identifier of the target called name, made at first
// use, never 0.
func (p *Prepared) Group(name string) (uint16, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	taken := make(map[uint16]bool, len(p.s.f.Groups)+len(p.groups))
	for _, m := range []map[string]uint16{p.s.f.Groups, p.groups} {
		if id, ok := m[name]; ok {
			return id, nil
		}
		for _, id := range m {
			taken[id] = true
		}
	}
	for id := uint16(1); id != 0; id++ {
		if !taken[id] {
			p.groups[name] = id
			return id, nil
		}
	}
	return 0, ErrNoGroup
}

// Initiator is the initiator port identifier of what reaches the export called name
// (such as "vhost:vm1"), a random UUID made at first use.
func (p *Prepared) Initiator(name string) (id [16]byte) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, m := range []map[string]string{p.s.f.Initiators, p.initiators} {
		if s, ok := m[name]; ok {
			id, _ = config.ParseUUID(s) // checked when it was read
			return id
		}
	}
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40 // version 4, variant 1 (RFC 9562 §5.4)
	id[8] = id[8]&0x3f | 0x80
	p.initiators[name] = config.FormatUUID(id)
	return id
}

// Commit stores what was made; it is stable when Commit returns nil, else
// nothing has changed.
func (p *Prepared) Commit() error {
	if len(p.disks) == 0 && len(p.ports) == 0 && len(p.groups) == 0 && len(p.initiators) == 0 {
		return nil
	}
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	n := newFile()
	for _, m := range []map[string]Disk{s.f.Disks, p.disks} {
		maps.Copy(n.Disks, m)
	}
	for _, m := range []map[string]uint16{s.f.Ports, p.ports} {
		maps.Copy(n.Ports, m)
	}
	for _, m := range []map[string]uint16{s.f.Groups, p.groups} {
		maps.Copy(n.Groups, m)
	}
	for _, m := range []map[string]string{s.f.Initiators, p.initiators} {
		maps.Copy(n.Initiators, m)
	}
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(s.path, append(b, '\n')); err != nil {
		return err
	}
	s.f = n
	for _, id := range p.ports {
		s.used[id] = true
	}
	clear(p.disks)
	clear(p.ports)
	clear(p.groups)
	clear(p.initiators)
	return nil
}
