package config

import (
	"time"

	"path/filepath"
	"strings"
)

// Version is the only version of the configuration file there is.
const Version = 1

// Defaults for what the file leaves out.
const (
	DefaultState     = "/var/lib/vtgt"
	DefaultAPISocket = "/run/vtgt/vtgt.sock"
	DefaultAPIMode   = 0o600

	DefaultBlockSize         = 512
	DefaultPhysicalBlockSize = 4096
	DefaultAtomicLog         = 4 << 20
)

// AtomicLogSuffix is what the intent log of a file is called beside the file's name.
const AtomicLogSuffix = ".atomic"

// Config is the whole declarative state. Make one with Parse or Load, or fill it
// in and call Validate.
type Config struct {
	Disks   []Disk
	Targets []Target
	ISCSI   ISCSI
	API     API
	// State is the folder of what must survive a restart, an absolute path.
	State string
	// Loops is the number of event loops; 0: one for each CPU that Go uses.
	Loops int
	// Memory bounds the payload buffers of all loops, bytes; 0: the default.
	Memory Size

	src *source // where each value stands; nil for a Config made by hand
}

// Cache is a write policy.
type Cache string

// The write policies.
const (
	// Writeback: a write is stable when SYNCHRONIZE CACHE or FUA says so.
	Writeback Cache = "writeback"
	// Writethrough: every write is stable before it is answered.
	Writethrough Cache = "writethrough"
	// Direct: as Writeback, past the host's page cache.
	Direct Cache = "direct"
)

// OnError says what happens to a command whose store failed.
type OnError string

// The error policies.
const (
	// Report: the initiator is told by sense data.
	Report OnError = "report"
	// Stop: the disk holds its commands until it is resumed.
	Stop OnError = "stop"
	// StopNoSpace: Stop where the store has no space left, else Report.
	StopNoSpace OnError = "enospc-stop"
)

// ALUA is an asymmetric access state of a target's ports (SPC-4 §5.15); empty:
// Optimized.
type ALUA string

// The access states.
const (
	Optimized    ALUA = "optimized"
	NonOptimized ALUA = "non-optimized"
	Standby      ALUA = "standby"
	Unavailable  ALUA = "unavailable"
	Offline      ALUA = "offline"
)

// State is a, or the state that an empty one stands for.
func (a ALUA) State() ALUA {
	if a == "" {
		return Optimized
	}
	return a
}

// Disk is a backing store with an identity.
type Disk struct {
	// Name is the disk's name, unique among disks.
	Name string
	// Store is scheme:rest, see SplitStore.
	Store string
	// Size in bytes; 0: what the store has.
	Size Size
	// Create makes a missing file, sparse, of Size bytes.
	Create bool
	// BlockSize and PhysicalBlockSize in bytes.
	BlockSize, PhysicalBlockSize int
	Cache                        Cache
	// Thin offers UNMAP and WRITE SAME with UNMAP where the store can discard.
	Thin      bool
	ReadOnly  bool
	Removable bool
	// Shared says that several initiators may write the disk.
	Shared bool
	// ExplicitALUA says that initiators may change access states by SET TARGET
	// PORT GROUPS.
	ExplicitALUA bool
	// OnError is what happens when the store fails.
	OnError OnError
	// Claim says that what is on a block device is its initiators', whatever
	// signature of a volume manager stands there.
	Claim bool
	// SanitizeSpeed bounds SANITIZE OVERWRITE and FORMAT UNIT where it writes, bytes
	// a second; 0: as fast as the store.
	SanitizeSpeed Size
	// AtomicLog is the size of the intent log that WRITE ATOMIC needs; 0: there is no
	// WRITE ATOMIC. That of a file lies beside it (AtomicLogSuffix).
	AtomicLog Size
	// KeyFile is the path of the key file of an encrypted: store.
	KeyFile string
	// Serial is the unit serial number; empty: made once and kept in the state
	// folder.
	Serial string
	// NAA is the designator of type NAA 3h (locally assigned), 16 hexadecimal
	// digits; empty: made once and kept in the state folder.
	NAA string
	// Reservations is the path of the file that keeps persistent reservations
	// through power loss; empty: it is in the state folder.
	Reservations string
	// Migratable says that the disk's virtual machine may move to another host, whose
	// vtgt serves the same disk: the one where it runs holds the disk's lock.
	Migratable bool
}

// DefaultDisk is a disk with the values that a file need not state.
func DefaultDisk() Disk {
	return Disk{
		BlockSize:         DefaultBlockSize,
		PhysicalBlockSize: DefaultPhysicalBlockSize,
		Cache:             Writeback,
		Thin:              true,
		OnError:           Report,
		AtomicLog:         DefaultAtomicLog,
	}
}

// LUN maps a disk into a target.
type LUN struct {
	LUN      uint16
	Disk     string
	ReadOnly bool
	// Initiators are patterns of the names of initiators that see the LUN;
	// empty: all.
	Initiators List
	// Address says where ring exports show the LUN.
	Address Address
}

// Target is a SCSI target device.
type Target struct {
	// Name is the target's name, unique among targets.
	Name string
	LUNs []LUN
	// ISCSI exports the target at every portal; nil: it does not.
	ISCSI *TargetISCSI
	// VHost exports the target to one virtual machine; nil: it does not.
	VHost *TargetVHost
	// VIO exports the target to one pSeries guest; nil: it does not.
	VIO *TargetVIO
	// Xen exports the target to one Xen domain; nil: it does not.
	Xen *TargetXen
	// ALUA is the access state of all its exports.
	ALUA ALUA
}

// TargetISCSI is a target's iSCSI export.
type TargetISCSI struct {
	// IQN is the iSCSI target name (RFC 7143 §4.2.7).
	IQN string
	// Alias is the TargetAlias key, for people (RFC 7143 §13.7).
	Alias string
	// CHAP are the users that initiators may log in as; empty: they need not
	// prove anything.
	CHAP []CHAP
	// Initiators are patterns of initiator names, Addresses where initiators may
	// come from, addresses and networks; empty: all.
	Initiators, Addresses List
	// Redirect sends initiators elsewhere.
	Redirect Redirect
	// PRIdentity is what tells initiator ports apart, PRNameISID or PRName;
	// empty: the former.
	PRIdentity string
	// MaxConnections is the most connections of a session; 0: 1.
	MaxConnections int
}

// ISCSI is what all iSCSI exports share.
type ISCSI struct {
	// Portals are addresses to listen on, "192.0.2.1:3260" or "[::1]:3260".
	// Port 0 lets the kernel choose.
	Portals []string
	// Discovery are the users that may see the list of targets; empty: all
	// initiators may.
	Discovery []CHAP
	// PingInterval is the silence after which an initiator is asked whether it is
	// there, PingTimeout how long it may take to answer; LoginTimeout is the time
	// for a login. 0: the default, 15 s each.
	PingInterval, PingTimeout, LoginTimeout time.Duration
	// MaxSessions is the number of sessions at a time; 0: the default, 4096.
	MaxSessions int
}

// API says where the daemon's own interface is.
type API struct {
	// Socket is the path of a UNIX socket.
	Socket string
	// Mode is the socket's permission: 0600, or 0660 with Group.
	Mode uint32
	// Group owns the socket; empty: the daemon's own.
	Group string
}

// SplitStore cuts "file:/path" into its scheme and the rest; scheme is empty
// where there is no colon.
func SplitStore(spec string) (scheme, rest string) {
	scheme, rest, ok := strings.Cut(spec, ":")
	if !ok {
		return "", spec
	}
	return scheme, rest
}

// IsBlock tells whether the store is a block device.
func (d *Disk) IsBlock() bool {
	scheme, _ := SplitStore(d.Store)
	return scheme == "block"
}

// Path is the cleaned path of a file:, encrypted: or block: store, empty for others.
func (d *Disk) Path() string {
	scheme, rest := SplitStore(d.Store)
	if (scheme == "file" || scheme == "block" || scheme == "encrypted") && rest != "" {
		return filepath.Clean(rest)
	}
	return ""
}

// Disk finds a disk by name, nil if there is none.
func (c *Config) Disk(name string) *Disk {
	for i := range c.Disks {
		if c.Disks[i].Name == name {
			return &c.Disks[i]
		}
	}
	return nil
}

// Target finds a target by name, nil if there is none.
func (c *Config) Target(name string) *Target {
	for i := range c.Targets {
		if c.Targets[i].Name == name {
			return &c.Targets[i]
		}
	}
	return nil
}

// disks and targets find many objects by name; the maps hold as long as c is not
// changed.
func (c *Config) disks() map[string]*Disk {
	m := make(map[string]*Disk, len(c.Disks))
	for i := range c.Disks {
		if d := &c.Disks[i]; m[d.Name] == nil {
			m[d.Name] = d
		}
	}
	return m
}

func (c *Config) targets() map[string]*Target {
	m := make(map[string]*Target, len(c.Targets))
	for i := range c.Targets {
		if t := &c.Targets[i]; m[t.Name] == nil {
			m[t.Name] = t
		}
	}
	return m
}

// Index is c with its objects found by name at once; c must not change meanwhile.
type Index struct {
	*Config
	disk   map[string]*Disk
	target map[string]*Target
}

// Index makes an Index of c.
func (c *Config) Index() *Index { return &Index{c, c.disks(), c.targets()} }

// Disk finds a disk by name, nil if there is none.
func (x *Index) Disk(name string) *Disk { return x.disk[name] }

// Target finds a target by name, nil if there is none.
func (x *Index) Target(name string) *Target { return x.target[name] }

// Default is an empty state with every default filled in.
func Default() *Config {
	return &Config{
		State: DefaultState,
		API:   API{Socket: DefaultAPISocket, Mode: DefaultAPIMode},
	}
}
