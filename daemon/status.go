package daemon

import "time"

// The types below are what the API reports; their JSON names are its version 1.

// UnitStats are the counters of a logical unit since it was made.
type UnitStats struct {
	Reads        uint64 `json:"reads"`
	Writes       uint64 `json:"writes"`
	Others       uint64 `json:"others"`
	ReadBytes    uint64 `json:"readBytes"`
	WrittenBytes uint64 `json:"writtenBytes"`
	// Errors counts commands that ended with CHECK CONDITION, by sense key
	// name; keys never seen are absent.
	Errors    map[string]uint64 `json:"errors,omitempty"`
	Aborted   uint64            `json:"aborted"`
	Conflicts uint64            `json:"conflicts"`
	InFlight  int64             `json:"inFlight"`
	Waiting   int64             `json:"waiting"`
	Stuck     int64             `json:"stuck"`
	// Latency counts commands by the time they took: element i those of
	// [2^i, 2^(i+1)) ns. LatencySum is the sum of the times in ns.
	Latency    []uint64 `json:"latency,omitempty"`
	LatencySum uint64   `json:"latencySum"`
}

// DiskStatus is a disk.
type DiskStatus struct {
	Name              string   `json:"name"`
	Store             string   `json:"store"`
	Size              int64    `json:"size"` // bytes
	BlockSize         int      `json:"blockSize"`
	PhysicalBlockSize int      `json:"physicalBlockSize"`
	Cache             string   `json:"cache"`
	Thin              bool     `json:"thin"`
	ReadOnly          bool     `json:"readOnly"`
	Shared            bool     `json:"shared"`
	Serial            string   `json:"serial"`
	NAA               string   `json:"naa"`
	OnError           string   `json:"onError"`
	LUNs              []string `json:"luns"` // TARGET/NUMBER
	// State is running; stopped: its commands are held since an error; latched:
	// it refuses writes since a sync failed; or the name of an operation that has the
	// whole medium with the percentage that is done, "SANITIZE OVERWRITE 45%", or
	// "failed" behind it.
	State string     `json:"state"`
	Error string     `json:"error,omitempty"` // that stopped it
	Since *time.Time `json:"since,omitempty"` // when
	Held  int        `json:"held,omitempty"`  // commands
	// Space of a thin disk in a file; nil for others.
	Space *SpaceStatus `json:"space,omitempty"`
	// Reservations are who has registered or reserved; none: nobody has.
	Reservations *Reservations `json:"reservations,omitempty"`
	// Revision at which the configuration of it came or last changed.
	Revision uint64    `json:"revision"`
	Stats    UnitStats `json:"stats"`
}

// SpaceStatus is the room of a thin disk, in bytes, some seconds old: what it takes, and
// what its file system has left and is large.
type SpaceStatus struct {
	Used      int64 `json:"used"`
	Available int64 `json:"available"`
	Total     int64 `json:"total"`
}

// LUNStatus is a place in a target.
type LUNStatus struct {
	LUN      uint16 `json:"lun"`
	Disk     string `json:"disk"`
	Size     int64  `json:"size"` // bytes
	ReadOnly bool   `json:"readOnly"`
	// VHostTarget is the virtio target that shows it.
	VHostTarget int `json:"vhostTarget,omitempty"`
	// VIOID and VIOLUN are where a vio export shows it.
	VIOID  int `json:"vioID,omitempty"`
	VIOLUN int `json:"vioLUN,omitempty"`
	// Xen is where a xen export shows it, HOST:CHANNEL:TARGET:LUN.
	Xen      string `json:"xen,omitempty"`
	Revision uint64 `json:"revision"`
}

// TargetStatus is a target.
type TargetStatus struct {
	Name   string `json:"name"`
	IQN    string `json:"iqn,omitempty"`
	Socket string `json:"socket,omitempty"` // vhost-user
	VIO    string `json:"vio,omitempty"`    // socket of the vio export
	Xen    string `json:"xen,omitempty"`    // domain and device of the xen export
	Alias  string `json:"alias,omitempty"`
	// ALUA is the access state of its ports as configured, PortGroup their target
	// port group identifier.
	ALUA      string      `json:"alua"`
	PortGroup uint16      `json:"portGroup"`
	LUNs      []LUNStatus `json:"luns"`
	Sessions  int         `json:"sessions"`
	// Revision at which it or one of its LUNs came or last changed.
	Revision uint64 `json:"revision"`
}

// ExportStatus is one way to reach a target.
type ExportStatus struct {
	Kind   string `json:"kind"` // iscsi, vhost, vio, xen
	Target string `json:"target"`
	// Name is the target port's: the iSCSI name, or a made one.
	Name string `json:"name"`
	// Addresses are those it is reachable at: portals, the socket, or the domain and
	// its device.
	Addresses []string `json:"addresses"`
	// State is listening; connected: a virtual machine is there; failed: it does not
	// serve.
	State string `json:"state"`
	// Reason says why it failed, or why the last virtual machine was turned away.
	Reason string `json:"reason,omitempty"`
	// RelativePort is the relative target port identifier, of vhost that of virtio
	// target 0.
	RelativePort uint16 `json:"relativePort"`
	Sessions     int    `json:"sessions"`
	// Stuck counts aborted commands that the stores of its disks hold beyond
	// the deadline.
	Stuck int64        `json:"stuck"`
	VHost *VHostStatus `json:"vhost,omitempty"`
	VIO   *VIOStatus   `json:"vio,omitempty"`
	Xen   *XenStatus   `json:"xen,omitempty"`
}

// Session is one initiator logged in.
type Session struct {
	Kind      string `json:"kind"` // iscsi, vhost, vio, xen
	Discovery bool   `json:"discovery,omitempty"`
	Target    string `json:"target"`
	IQN       string `json:"iqn"`
	Initiator string `json:"initiator"`
	Alias     string `json:"alias,omitempty"` // the initiator's
	ISID      string `json:"isid"`
	// VHostTarget is the virtio target that a virtual machine sees.
	VHostTarget int `json:"vhostTarget,omitempty"`
	// VIOID is the id that a pSeries guest sees.
	VIOID int    `json:"vioID,omitempty"`
	TSIH  uint16 `json:"tsih"`
	// Params are the negotiated values by their key in RFC 7143 §13.
	// MaxRecvDataSegmentLength is the target's, …Peer the initiator's.
	Params      map[string]string `json:"params"`
	Connections []Connection      `json:"connections"`
	Since       time.Time         `json:"since"`
	Commands    uint64            `json:"commands"`
	BytesIn     uint64            `json:"bytesIn"`  // from the initiator
	BytesOut    uint64            `json:"bytesOut"` // to it
}

// Connection is one connection of a session.
type Connection struct {
	CID    uint16 `json:"cid"`
	Local  string `json:"local"`
	Remote string `json:"remote"`
	Loop   int    `json:"loop"`
	// The digests are each connection's own.
	HeaderDigest string `json:"headerDigest"`
	DataDigest   string `json:"dataDigest"`
	Commands     uint64 `json:"commands"`
}

// Traffic are the counters of the front ends since the daemon began.
type Traffic struct {
	Sessions    int    `json:"sessions"`
	Discoveries int    `json:"discoveries"`
	HalfOpen    int    `json:"halfOpen"`
	Logins      uint64 `json:"logins"`
	Commands    uint64 `json:"commands"`
	BytesIn     uint64 `json:"bytesIn"`
	BytesOut    uint64 `json:"bytesOut"`
	PDUsIn      uint64 `json:"pdusIn"`
	PDUsOut     uint64 `json:"pdusOut"`
	// Complaints counts what peers did against the rules, by kind.
	Complaints map[string]uint64 `json:"complaints"`
	// MemoryUsed and MemoryLimit are bytes of payload buffers.
	MemoryUsed  int64 `json:"memoryUsed"`
	MemoryLimit int64 `json:"memoryLimit"`
	Loops       int   `json:"loops"`
}

// Status is the daemon itself.
type Status struct {
	State    string    `json:"state"` // running, closing
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Revision uint64    `json:"revision"`
	Applied  time.Time `json:"applied"`
	// ConfigFile is the file that the present configuration was read from, as
	// it was named.
	ConfigFile string   `json:"configFile"`
	StateDir   string   `json:"stateDir"`
	Disks      int      `json:"disks"`
	Targets    int      `json:"targets"`
	Portals    []string `json:"portals"`
	Traffic    Traffic  `json:"traffic"`
}

// ConfigText is the configuration in force, as text.
type ConfigText struct {
	File     string `json:"file"`
	Revision uint64 `json:"revision"`
	Text     string `json:"text"`
}
