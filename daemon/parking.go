package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/vtgt/vtgt/internal/handover"
	"github.com/vtgt/vtgt/vhost"
)

// Parking is the parent's store of descriptors (systemd's FileDescriptorStoreMax=), where
// virtual machines' connections outlive a daemon that is killed: also those of QEMU before
// 9, which cannot connect anew. A nil one keeps nothing.
type Parking struct {
	log   *slog.Logger
	store *handover.Store
	found map[string]*handover.Found
}

// parked is the block of one export.
type parked struct {
	Version   int          `json:"version"`
	Target    string       `json:"target"`
	Socket    string       `json:"socket"`
	Initiator [16]byte     `json:"initiator"`
	VHost     *vhost.Saved `json:"vhost"`
}

// NewParking uses the store behind addr (NOTIFY_SOCKET; "": there is none). files are
// what came from the parent (sd_listen_fds(3)); rest those that were not parked.
func NewParking(addr string, files []*os.File, log *slog.Logger) (p *Parking, rest []*os.File, err error) {
	var ours []*os.File
	for _, f := range files {
		if handover.IsParked(f.Name()) {
			ours = append(ours, f)
		} else {
			rest = append(rest, f)
		}
	}
	if addr == "" {
		closeFiles(ours)
		return nil, rest, nil
	}
	p = &Parking{log: log, found: map[string]*handover.Found{}}
	if p.store, err = handover.OpenStore(addr); err != nil {
		closeFiles(ours)
		return nil, rest, err
	}
	found, stale := handover.Parked(ours)
	for _, name := range stale {
		_ = p.store.Remove(name)
	}
	for _, f := range found {
		p.found[f.Key] = f
	}
	return p, rest, nil
}

func parkKey(target string) string {
	h := sha256.Sum256([]byte(ringKey(kindVHost, target)))
	return hex.EncodeToString(h[:12])
}

// settle drops what was parked by exports that there are no more.
func (p *Parking) settle() {
	if p == nil {
		return
	}
	for key, f := range p.found {
		delete(p.found, key)
		f.Set.Close()
		p.drop(key)
	}
}

// drop has the store forget an export's state.
func (p *Parking) drop(key string) { _ = p.store.Place(key, -1).Clear() }

// Close leaves what is parked where it is.
func (p *Parking) Close() {
	if p == nil {
		return
	}
	for _, f := range p.found {
		f.Set.Close()
	}
	_ = p.store.Close()
}

// use has c park its state, and go on with what is parked; undo, where it is not nil, is
// for where it cannot.
func (p *Parking) use(c *vhost.Config, s *ringSpec) (undo func(why error)) {
	if p == nil {
		return nil
	}
	key := parkKey(s.target)
	f := p.found[key]
	delete(p.found, key)
	place := &parkPlace{spec: s}
	c.Parker = place
	if f == nil {
		place.at = p.store.Place(key, -1)
		return nil
	}
	if c.Saved != nil { // of a takeover, which is newer
		f.Set.Close()
		place.at = p.store.Place(key, -1)
		return nil
	}
	place.at = p.store.Place(key, f.Turn)
	undo = func(why error) {
		p.log.Warn("a virtual machine's connection was kept over the end of the vtgt before, and cannot be gone on with", "target", s.target, "err", why)
		f.Set.Close()
		_ = place.at.Clear()
		c.Saved, c.Set, c.Crashed = nil, nil, false
	}
	var b parked
	err := json.Unmarshal(f.Block, &b)
	switch {
	case err != nil:
	case b.Version != legacyVersion:
		err = fmt.Errorf("vtgt speaks version %d of takeovers, and what was kept is of version %d", legacyVersion, b.Version)
	case b.Target != s.target || b.Socket != s.socket || b.Initiator != s.initiator || b.VHost == nil:
		err = fmt.Errorf("it came by another socket or is another initiator's")
	}
	if err != nil {
		undo(err)
		return nil
	}
	c.Saved, c.Set, c.Crashed = b.VHost, f.Set, true
	return undo
}

// parkPlace is a vhost.Parker.
type parkPlace struct {
	at   *handover.Place
	spec *ringSpec
}

func (p *parkPlace) Park(s *vhost.Saved, set *handover.Set) error {
	b, err := json.Marshal(parked{legacyVersion, p.spec.target, p.spec.socket, p.spec.initiator, s})
	if err != nil {
		return err
	}
	return p.at.Park(b, set)
}

func (p *parkPlace) Unpark() { _ = p.at.Clear() }
